"""What brings weights into memory: the loader, what people use today, and the disk itself as fio reads it.

`scenarios` says what is compared and `rows` what must come of it; `running` plays a scenario on the files of `checkpoint`,
which `temperature` makes cold or warm; `clients` are the programs that load. `report` tells.
"""
