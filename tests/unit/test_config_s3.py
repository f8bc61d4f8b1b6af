from __future__ import annotations

import copy
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.config.s3 import S3ConfigurationProvider

SECRET, TOKEN, PASSWORD = "wJalrXUtnFEMI+K7MDENG", "FwoGZXIvYXdzEJr//token=", "hunter2-hunter2"

keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
words = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)
providers = st.builds(
    S3ConfigurationProvider,
    aws_access_key_id=keys,
    aws_secret_access_key=keys,
    aws_session_token=st.none() | keys,
    region_name=words,
    s3_endpoint=st.none()
    | st.builds(
        "{}://{}:{}".format, st.sampled_from(["http", "https"]), words, st.integers(1, 65535)
    ),
    s3_signature_version=st.none() | words,
    s3_force_path_style=st.booleans(),
)


def everything_said(error: BaseException) -> str:
    """The error, what Python would print, and every error it was made from, hidden or not."""
    said = traceback.format_exception(error)
    seen: BaseException | None = error
    while seen is not None:
        said += [repr(seen), str(seen), repr(seen.args), repr(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(said)


class TestRoundTrips:
    @given(provider=providers)
    def test_a_container_has_the_configuration_of_its_client(
        self, provider: S3ConfigurationProvider
    ) -> None:
        body = provider.get_secret_body()
        again = S3ConfigurationProvider.from_env(body)
        assert again.get_secret_body() == body
        assert vars(again) == vars(provider)
        assert all(isinstance(value, str) and value for value in body.values())

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(provider=providers)
    def test_a_file_says_as_much_as_the_constructor(
        self, tmp_path: Path, provider: S3ConfigurationProvider
    ) -> None:
        body = provider.get_secret_body()
        lines = {
            "aws_access_key_id": body["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": body["AWS_SECRET_ACCESS_KEY"],
            "aws_session_token": body.get("AWS_SESSION_TOKEN"),
            "region": body["AWS_REGION"],
            "endpoint_url": body.get("AWS_ENDPOINT_URL_S3"),
            "s3_signature_version": body.get("KAPTAIN_S3_SIGNATURE_VERSION"),
            "s3_force_path_style": body.get("KAPTAIN_S3_FORCE_PATH_STYLE"),
        }
        file = tmp_path / "credentials"
        text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value)
        file.write_text(f"[other]\naws_access_key_id = not this\n\n[default]\n{text}")
        assert S3ConfigurationProvider.from_file(file).get_secret_body() == body

    @given(provider=providers)
    def test_a_repr_shows_the_address_and_nothing_secret(
        self, provider: S3ConfigurationProvider
    ) -> None:
        expected = (
            f"S3ConfigurationProvider(endpoint={provider.s3_endpoint!r}, "
            f"region={provider.region_name!r})"
        )
        assert repr(provider) == str(provider) == f"{provider}" == expected


class TestSources:
    def test_only_what_is_known_is_handed_on(self) -> None:
        assert S3ConfigurationProvider("key", SECRET).get_secret_body() == {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def test_the_process_s_variables_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in os.environ:
            if name.startswith(("AWS_", "KAPTAIN_S3_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", " key\n")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}\n")
        monkeypatch.setenv("AWS_SESSION_TOKEN", " ")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
        monkeypatch.setenv("KAPTAIN_S3_FORCE_PATH_STYLE", "True")
        assert S3ConfigurationProvider.from_env().get_secret_body() == {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL_S3": "http://minio:9000",
            "KAPTAIN_S3_FORCE_PATH_STYLE": "true",
        }

    def test_the_more_particular_variable_wins(self) -> None:
        provider = S3ConfigurationProvider.from_env(
            {
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "eu-west-1",
                "AWS_DEFAULT_REGION": "us-west-2",
                "AWS_ENDPOINT_URL": "http://all:1",
                "AWS_ENDPOINT_URL_S3": "http://s3:2",
            }
        )
        assert (provider.region_name, provider.s3_endpoint) == ("eu-west-1", "http://s3:2")

    def test_the_usual_file_is_read_when_none_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ConfigurationError, match=r"\.aws/credentials.*there is no such file"):
            S3ConfigurationProvider.from_file()
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "credentials").write_text(
            f"\ufeff[default]\nAWS_ACCESS_KEY_ID=key\naws_secret_access_key={SECRET}\n"
            f"[profile lab]\naws_access_key_id=lab\naws_secret_access_key=%(x)s#;=\n"
        )
        assert S3ConfigurationProvider.from_file().get_secret_body()["AWS_ACCESS_KEY_ID"] == "key"
        lab = S3ConfigurationProvider.from_file(profile="lab").get_secret_body()
        assert (lab["AWS_ACCESS_KEY_ID"], lab["AWS_SECRET_ACCESS_KEY"]) == ("lab", "%(x)s#;=")


class TestBrokenSources:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (f"aws_secret_access_key = {SECRET}\n", "is broken"),
            (f"[default]\naws_secret_access_key {SECRET}\n", "is broken"),
            (f"[default]\nx = {SECRET}\nx = {SECRET}\n", "is broken"),
            (f"[default]\nx = {SECRET}\n[default]\n", "is broken"),
            (f"[other]\naws_secret_access_key = {SECRET}\n", r"has no section \[default\]"),
            (f"[default]\naws_secret_access_key = {SECRET}\n", "aws_access_key_id is missing"),
            (f"[default]\naws_access_key_id =\naws_secret_access_key = {SECRET}\n", "is missing"),
            (
                f"[default]\naws_access_key_id = k\naws_secret_access_key = {SECRET}\n  {TOKEN}\n",
                "aws_secret_access_key holds a blank, a line end",
            ),
            ("", r"has no section \[default\]"),
        ],
    )
    def test_a_file_is_named_and_nothing_of_it_is_shown(
        self, tmp_path: Path, text: str, said: str
    ) -> None:
        file = tmp_path / "credentials"
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=said) as caught:
            S3ConfigurationProvider.from_file(file)
        assert str(file) in str(caught.value)
        assert SECRET not in everything_said(caught.value)
        assert TOKEN not in everything_said(caught.value)

    def test_what_is_no_text_is_not_shown(self, tmp_path: Path) -> None:
        file = tmp_path / "credentials"
        file.write_bytes(f"[default]\naws_secret_access_key = {SECRET}\xff".encode("latin-1"))
        with pytest.raises(ConfigurationError, match="not text in UTF-8") as caught:
            S3ConfigurationProvider.from_file(file)
        assert SECRET not in everything_said(caught.value)
        assert caught.value.__context__ is None

    def test_a_folder_or_an_unknown_user_s_home_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="Is a directory"):
            S3ConfigurationProvider.from_file(tmp_path)
        for path in ("~no-such-user-here/credentials", "a\0b"):
            with pytest.raises(ConfigurationError, match="its path is not legal"):
                S3ConfigurationProvider.from_file(path)

    @pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    def test_variables_that_are_missing_are_named(self, missing: str) -> None:
        body = S3ConfigurationProvider("key", SECRET).get_secret_body()
        del body[missing]
        with pytest.raises(ConfigurationError, match=f"{missing.lower()} is missing") as caught:
            S3ConfigurationProvider.from_env(body)
        assert "AWS_ACCESS_KEY_ID" in str(caught.value)
        assert SECRET not in everything_said(caught.value)

    @pytest.mark.parametrize(
        "key", ["", "  ", None, 7, f"{SECRET} x", f"{SECRET}\nx", f"ü{SECRET}"]
    )
    @pytest.mark.parametrize("name", ["aws_access_key_id", "aws_secret_access_key"])
    def test_keys_that_cannot_be_keys_are_refused_unseen(self, name: str, key: Any) -> None:
        given = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", name: key}
        with pytest.raises(ConfigurationError, match=name) as caught:
            S3ConfigurationProvider(**given)
        assert SECRET not in everything_said(caught.value)

    @pytest.mark.parametrize(
        "endpoint",
        ["minio:9000", "ftp://minio", "http://", "http://[::1", "http://h:99999", "http://a b/"],
    )
    def test_an_endpoint_must_be_a_complete_url(self, endpoint: str) -> None:
        with pytest.raises(ConfigurationError, match="not a complete URL such as"):
            S3ConfigurationProvider("key", SECRET, s3_endpoint=endpoint)

    @pytest.mark.parametrize(
        "endpoint", [f"http://me:{PASSWORD}@minio:9000", f"me:{PASSWORD}@minio", f"x://{PASSWORD}@"]
    )
    def test_a_password_in_an_endpoint_is_refused_unseen(self, endpoint: str) -> None:
        with pytest.raises(ConfigurationError, match="user name or password") as caught:
            S3ConfigurationProvider("key", SECRET, s3_endpoint=endpoint)
        assert PASSWORD not in everything_said(caught.value)

    def test_a_blank_endpoint_is_aws_s_own(self) -> None:
        provider = S3ConfigurationProvider("key", SECRET, s3_endpoint="  ")
        assert provider.s3_endpoint is None
        assert copy.deepcopy(provider).get_secret_body() == provider.get_secret_body()
