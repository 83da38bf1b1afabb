"""Compare loading into memory: the loader, the libraries that people use today, and the limit of the disk by fio.

`scenarios` defines the comparisons and `rows` the required ratios. `running` runs a scenario on the files of `checkpoint`,
which `temperature` makes cold or warm. `clients` are the programs that load. `report` shows the results.
"""
