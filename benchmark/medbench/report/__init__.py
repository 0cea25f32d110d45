"""Report pages: what runs came to, as one HTML file that needs nothing else to be read.

`runs` reads and checks the folders of runs, `tables` and the modules named after task types and
figures turn them into tables and drawings, `page` puts these together. A page holds only what the
runs' own files say, and, for segmentation, the images they were made from where these are at hand;
equal input gives equal bytes.
"""
