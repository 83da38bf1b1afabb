"""The documentation: pages in Markdown, `generator` for those that are made from the code, `conf` for the site."""
