"""What runs inside a training process, anywhere: the standard library and boto3 only.

`ModelExportUtil` and `MetadataUtil` are all that a training script needs. The modules below them
(URIs, files, S3) are what `kaptain_zen.storage` is built on too, so that a model looks the same
whoever wrote it.
"""
