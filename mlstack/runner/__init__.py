"""What runs around a stage elsewhere: in a container or a pod that has nothing but its image and this folder.

It fetches code, data and inputs by hash, runs the command, hashes and pushes the outputs, and writes the result record
last. It stands alone: the standard library and obstore, for any Python from 3.9 on, so that it can be laid beside the
Python of any image (`boot.py`) and never into it. `docs/runner.md` tells its whole way.
"""
