"""Run all benchmarks, one after the other."""

from benchmarks import imports, pipeline, router

for part in (imports, router, pipeline):
    part.main()
    print()
