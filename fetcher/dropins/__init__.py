"""Commands that replace the download containers of other systems.

They accept the variables and arguments of those systems, and fetch as `fetcher` does.

::

    storage_initializer   KServe's: SRC DST [SRC DST ...]
    model_downloader      LLMKube's: MODEL_SOURCE, CACHE_DIR, MODEL_PATH, MODEL_FILES

    kserve, llmkube       parsing of each system's arguments and variables into plain values
    kserve_access         credentials of each store by KServe's variables and storage Secret: kserve_s3, _gcs, _azure, _oci
    fetching              concurrent fetches of several artifacts within one budget
    renaming              a source that renames the files of another source
    unpacking             an archive as a source
    linking               links to a local directory, instead of a copy
"""
