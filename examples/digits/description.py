"""What the digits model is: said once, used by the plain script and by the pipeline."""

from kaptain_zen import ModelSpec

DIGITS = ModelSpec(
    id="dev/digits",
    name="Digits",
    description="Recognises handwritten digits of 8 by 8 pixels",
    version="1.0",
    framework="sklearn",
    framework_version="1.9",
    main_file="training.py",
    requirements="requirements.txt",
    image_name="example/digits",
    base_image="python:3.11-slim",
    labels=("example",),
)
