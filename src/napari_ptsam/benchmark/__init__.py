"""The comparison of methods: data sets x methods x sizes x splits x seeds, from one file.

`read_config` reads the file, `run_benchmark` runs what is missing of it, `write_report` says
what came of it. ``docs/benchmark.md`` describes the file.
"""
