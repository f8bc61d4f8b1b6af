"""Docker credentials, the registry's certificate, and the configuration that holds them."""

from __future__ import annotations

import json
import ssl
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.config import Config
from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.config.certificates import DockerRegistryCertificateProvider
from kaptain_zen.platform.config.docker import DockerConfigurationProvider
from kaptain_zen.platform.config.provider import ConfigurationProvider
from kaptain_zen.platform.config.s3 import S3ConfigurationProvider

PASSWORD = "dXNlcjpodW50ZXIyLWh1bnRlcjI="
DOCKER = json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": PASSWORD}}})


def everything_said(error: BaseException) -> str:
    said = traceback.format_exception(error)
    seen: BaseException | None = error
    while seen is not None:
        said += [repr(seen), repr(seen.args), repr(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(said)


@pytest.fixture(scope="module")
def certificate() -> str:
    """A certificate of one of the authorities that this machine trusts."""
    context = ssl.create_default_context()
    found = context.get_ca_certs(binary_form=True)
    if not found:
        import certifi

        context.load_verify_locations(certifi.where())
        found = context.get_ca_certs(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(found[0])


class TestDocker:
    def test_what_was_given_is_handed_on_letter_for_letter(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(DOCKER)
        for provider in (
            DockerConfigurationProvider(DOCKER),
            DockerConfigurationProvider.from_file(tmp_path / "config.json"),
            DockerConfigurationProvider.from_file(str(tmp_path / "config.json")),
        ):
            assert provider.get_secret_body() == {"config.json": DOCKER}
            assert repr(provider) == str(provider) == "DockerConfigurationProvider(…)"

    def test_the_usual_file_is_read_when_none_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ConfigurationError, match=r"\.docker/config\.json.*no such file"):
            DockerConfigurationProvider.from_file()
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(DOCKER)
        assert DockerConfigurationProvider.from_file().get_secret_body() == {"config.json": DOCKER}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "null",
            "[]",
            "{}",
            '{"auths": []}',
            f'{{"auths": {{"x": "{PASSWORD}"}}',
            f'["{PASSWORD}"]',
            "[" * 100_000,
            None,
            7,
            DOCKER.encode(),
        ],
    )
    def test_what_is_no_configuration_is_refused_unseen(self, text: Any) -> None:
        with pytest.raises(ConfigurationError, match="docker login") as caught:
            DockerConfigurationProvider(text)
        assert PASSWORD not in everything_said(caught.value)
        assert caught.value.__context__ is None

    @given(st.dictionaries(st.text(), st.dictionaries(st.text(), st.text())))
    def test_any_json_with_auths_will_do(self, auths: dict[str, dict[str, str]]) -> None:
        text = json.dumps({"auths": auths, "credsStore": "desktop"})
        assert DockerConfigurationProvider(text).get_secret_body() == {"config.json": text}


class TestCertificate:
    def test_a_certificate_is_handed_on(self, tmp_path: Path, certificate: str) -> None:
        path = tmp_path / "certificate.crt"
        path.write_text(certificate)
        provider = DockerRegistryCertificateProvider.from_file(path)
        assert provider.get_secret_body() == {"certificate.crt": certificate}
        assert provider.certificate_path == str(path)
        assert repr(provider) == "DockerRegistryCertificateProvider(…)"
        both = DockerRegistryCertificateProvider(certificate * 2)
        assert both.certificate_path is None

    def test_the_usual_file_is_read_when_none_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: str
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ConfigurationError, match=r"\.tls/certificate\.crt"):
            DockerRegistryCertificateProvider.from_file()
        (tmp_path / ".tls").mkdir()
        (tmp_path / ".tls" / "certificate.crt").write_text(certificate)
        assert DockerRegistryCertificateProvider.from_file().get_secret_body()

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "  \n",
            "ü",
            None,
            b"",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            f"-----BEGIN PRIVATE KEY-----\n{PASSWORD}\n-----END PRIVATE KEY-----\n",
        ],
    )
    def test_what_is_no_certificate_is_refused(self, body: Any) -> None:
        with pytest.raises(ConfigurationError, match="at here is not a certificate") as caught:
            DockerRegistryCertificateProvider(body, "here")
        assert PASSWORD not in everything_said(caught.value)


class TestConfig:
    def test_the_defaults_are_the_kaptain_sdk_s(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        config = Config()
        assert config.base_model_storage_uri == "s3://kaptain/models"
        assert config.base_dir == str(tmp_path)
        assert config.storage_environment() == {}

    def test_it_shows_nothing_of_what_its_providers_hold(self) -> None:
        s3 = S3ConfigurationProvider("AKIAID", "the-secret", "the-token")
        config = Config(
            storage_config_provider=s3, docker_config_provider=DockerConfigurationProvider(DOCKER)
        )
        for secret in ("AKIAID", "the-secret", "the-token", PASSWORD):
            assert secret not in repr(config) + str(config) + f"{config}"
        assert config.storage_environment() == s3.get_secret_body()

    @pytest.mark.parametrize(
        "name",
        [
            "docker_config_provider",
            "storage_config_provider",
            "docker_registry_certificate_provider",
        ],
    )
    def test_credentials_come_from_a_provider_and_are_not_shown(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=f"{name} must be a Conf.*not str") as caught:
            Config(**{name: PASSWORD})  # type: ignore[arg-type]  # what the test is about
        assert PASSWORD not in str(caught.value)

    @pytest.mark.parametrize(
        ("uri", "expected"),
        [
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/models//", "s3://bucket/models"),
            ("file:///var/models/", "file:///var/models"),
            ("file:///a%20b", "file:///a%20b"),
        ],
    )
    def test_slashes_at_the_end_of_the_storage_are_left_out(self, uri: str, expected: str) -> None:
        assert Config(base_model_storage_uri=uri).base_model_storage_uri == expected

    @pytest.mark.parametrize(
        "uri",
        [
            "",
            None,
            Path("/var/models"),
            "/var/models",
            "gs://bucket/models",
            "s3://",
            "s3://[abc",
            "s3://bucket/../x",
            "file://",
            "file:///",
            "file://models",
        ],
    )
    def test_a_storage_that_is_none_is_refused(self, uri: Any) -> None:
        with pytest.raises(ConfigurationError, match="base_model_storage_uri"):
            Config(base_model_storage_uri=uri)

    def test_a_base_dir_is_made_absolute(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", "/home/me")
        for given_dir, expected in {
            "": tmp_path,
            "x": tmp_path / "x",
            "~/x": Path("/home/me/x"),
            "/x": Path("/x"),
        }.items():
            assert Config(base_dir=given_dir).base_dir == str(expected)

    @pytest.mark.parametrize("folder", [None, 7, "~no-such-user-here/x"])
    def test_a_base_dir_that_is_none_is_refused(self, folder: Any) -> None:
        with pytest.raises(ConfigurationError, match="base_dir"):
            Config(base_dir=folder)

    def test_a_provider_of_somebody_s_own_shows_nothing_either(self) -> None:
        class Vault(ConfigurationProvider):
            def __init__(self) -> None:
                self.value = PASSWORD

            def get_secret_body(self) -> dict[str, str]:
                return {"AWS_ACCESS_KEY_ID": self.value}

        config = Config(storage_config_provider=Vault())
        assert PASSWORD not in repr(config)
        assert config.storage_environment() == {"AWS_ACCESS_KEY_ID": PASSWORD}
