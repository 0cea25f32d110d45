"""Report pages: what runs came to, as one HTML file that needs nothing else to be read.

`runs` reads and checks the folders of runs, `tables` and the modules named after task types and
figures turn them into tables and drawings, `page` puts these together. A page holds only what the
runs' own files say, and, for segmentation and reports, the images they were made from where these
are at hand; equal input gives equal bytes. `reader_study` makes of one run what readers need to
tell real from generated images, and a key apart.
"""
