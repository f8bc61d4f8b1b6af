"""Defaults that the configuration falls back to."""

BASE_MODEL_STORAGE_URI = "s3://kaptain/models"
DOCKER_CONFIG_PATH = "~/.docker/config.json"
REGISTRY_CERTIFICATE_PATH = "~/.tls/certificate.crt"
AWS_CREDENTIALS_PATH = "~/.aws/credentials"
AWS_REGION = "us-east-1"
