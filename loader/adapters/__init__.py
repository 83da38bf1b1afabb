"""Adapters to torch and inference engines. Each module imports its program, and only that program or a user imports it.

vLLM and SGLang choose files and treat tensors as always; only the function that reads safetensors is replaced while they ask
for it, since a method written again would leave out what their next version adds. The processes of one host read the same
files in the same order. Each brings a part of its own into the page cache ahead of the others.
"""
