"""loader: reads safetensors from shared or node-local storage as fast as the storage gives them."""
