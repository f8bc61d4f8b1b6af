"""Speed, as ratios measured side by side in one run: `make benchmark`.

Machines are shared and noisy, so nothing here is a test and no absolute time means much.
"""
