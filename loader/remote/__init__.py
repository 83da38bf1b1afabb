"""A checkpoint read from its source into tensors, without a disk between. Alone in reaching sources (`fetcher.api`).

The header of each file comes first. Then tensors come in the order of the files, received by the threads that read ahead
straight into their memory. Each file is compared with what is published of it while it comes: its last tensors are delivered
only if all of it is right.
"""
