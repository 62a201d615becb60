"""Copying trees into and out of filesystems: directories, tar and zip archives."""
