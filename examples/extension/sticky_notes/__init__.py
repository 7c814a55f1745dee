"""A method, a backbone and a data set for easyedit_mm_plugins, one file each."""
