"""Unpacks archives that are not trusted, and the layers of images. Nothing outside the given directory is written.

::

    reading           the members of an archive of any usual format; `streams` bounds what the libraries read and allocate
    layers            an archive, or several over each other as the layers of an image, become files
    members           plain files below one directory, with checked names, within the free space
"""
