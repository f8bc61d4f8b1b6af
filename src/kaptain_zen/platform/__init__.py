"""The platforms: five adapters each, put together in `platform.py`.

Importing this package loads none of them.
"""
