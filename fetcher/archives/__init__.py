"""Unpacks archives that are not trusted, and the layers of images. Nothing outside the given directory is written.

::

    reading           an archive of any usual format; `streams` bounds what the libraries read and allocate
    layers            several archives over each other, as the layers of an image
    members           plain files below one directory, with checked names, within the free space
"""
