"""What people ask of a cluster: `fetcher cluster status`. `overview` decides what is shown, `looking` asks the API server."""
