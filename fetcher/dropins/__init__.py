"""Commands in the place of other systems' download containers: they speak those systems' environment and arguments, and
fetch as `fetcher` does.

::

    storage_initializer   KServe's: SRC DST [SRC DST ...]
    model_downloader      LLMKube's: MODEL_SOURCE, CACHE_DIR, MODEL_PATH, MODEL_FILES

    kserve, llmkube       what the words and variables of each mean, as plain values
    fetching              several artifacts at once, within one budget
    renaming              a source whose files get other names
    archives, members     an archive, unpacked without trusting it
    unpacking             its files as an artifact
    linking               a local directory, linked instead of copied
"""
