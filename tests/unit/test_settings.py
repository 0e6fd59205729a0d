from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from lowtide import InvalidSettings, Mode, Settings
from lowtide.settings import without_password
from lowtide_worker.settings import WorkerSettings

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in os.environ:
        if name.upper().startswith(("LOWTIDE_", "GOOGLE_", "GEMINI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("model", [Settings, WorkerSettings])
def test_every_setting_is_described(model: type[Settings]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", '"', "}")), name


@pytest.mark.parametrize("model", [Settings, WorkerSettings])
def test_every_setting_has_a_default(model: type[Settings]) -> None:
    assert isinstance(model(), model)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_REDIS_URL", "redis://elsewhere:1/2")
    monkeypatch.setenv("LOWTIDE_SPOOL_URL", "gs://bucket/spool")
    monkeypatch.setenv("LOWTIDE_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("LOWTIDE_MODE", "inline")
    for model in (Settings, WorkerSettings):
        read = model()
        assert read.redis_url.get_secret_value() == "redis://elsewhere:1/2"
        assert read.spool_url == "gs://bucket/spool"
        assert read.max_attempts == 7
        assert read.mode is Mode.INLINE


def test_settings_come_from_a_dotenv_file_which_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("LOWTIDE_MAX_ATTEMPTS=4\nLOWTIDE_LEASE_SECONDS=9\nGEMINI_API_KEY=from-file\nOTHER=1\n")
    monkeypatch.setenv("LOWTIDE_MAX_ATTEMPTS", "5")
    read = WorkerSettings()
    assert (read.max_attempts, read.lease_seconds) == (5, 9)
    assert read.google_api_key is not None
    assert read.google_api_key.get_secret_value() == "from-file"


def test_worker_settings_have_lowtides_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_POLL_FIRST_SECONDS", "1.5")
    monkeypatch.setenv("LOWTIDE_DELETE_AT_PROVIDER", "false")
    monkeypatch.setenv("LOWTIDE_BROKERS", '{"shop-broker": "amqp://user:pw@host//"}')
    read = WorkerSettings()
    assert read.poll_first_seconds == 1.5
    assert read.delete_at_provider is False
    assert read.brokers["shop-broker"].get_secret_value() == "amqp://user:pw@host//"


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({}, None),
        ({"GEMINI_API_KEY": "gemini"}, "gemini"),
        ({"GOOGLE_API_KEY": "google"}, "google"),
        ({"GEMINI_API_KEY": "gemini", "GOOGLE_API_KEY": "google"}, "google"),
        ({"GEMINI_API_KEY": "gemini", "GOOGLE_API_KEY": ""}, "gemini"),
        ({"GEMINI_API_KEY": "", "GOOGLE_API_KEY": ""}, None),
    ],
)
def test_the_api_key_has_the_sdks_own_names(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], key: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = WorkerSettings().google_api_key
    assert (found.get_secret_value() if found else None) == key


def test_the_endpoint_has_the_sdks_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:8000")
    assert WorkerSettings().google_gemini_base_url == "http://127.0.0.1:8000"


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_MAX_ATTEMPTS", "")
    monkeypatch.setenv("LOWTIDE_REDIS_URL", "")
    assert Settings().max_attempts == Settings.model_fields["max_attempts"].default
    assert Settings().redis_url.get_secret_value().startswith("redis://")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOWTIDE_MAX_ATTEMPTS", "0"),
        ("LOWTIDE_MAX_ATTEMPTS", "many"),
        ("LOWTIDE_MODE", "pigeon"),
        ("LOWTIDE_MAX_REQUESTS_PER_JOB", "0"),
        ("LOWTIDE_LEASE_SECONDS", "0"),
        ("LOWTIDE_SEGMENT_ROWS", "0"),
        ("LOWTIDE_POLL_FACTOR", "0.5"),
        ("LOWTIDE_POLL_FIRST_SECONDS", "-1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=f"^{name}: "):
        WorkerSettings()


def secrets() -> WorkerSettings:
    return WorkerSettings.model_validate(
        {
            "redis_url": f"redis://:{SECRET}@host:6379/0",
            "GOOGLE_API_KEY": SECRET,
            "brokers": {"shop": f"amqp://user:{SECRET}@host//"},
        }
    )


def test_no_secret_is_in_what_settings_print_or_dump() -> None:
    settings = secrets()
    shown = [repr(settings), str(settings), f"{settings}", settings.model_dump_json(), str(settings.model_dump())]
    shown += [repr(value) for _, value in settings]
    assert settings.google_api_key == SecretStr(SECRET)
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOWTIDE_BROKERS", f'{{"shop": ["amqp://user:{SECRET}@host"]}}'),
        ("LOWTIDE_BROKERS", f'{{"shop": {{"url": "amqp://user:{SECRET}@host"}}}}'),
        ("LOWTIDE_BROKERS", f'["amqp://user:{SECRET}@host"]'),
        ("LOWTIDE_BROKERS", f"amqp://user:{SECRET}@host"),
        ("LOWTIDE_MAX_ATTEMPTS", f"redis://:{SECRET}@host"),
    ],
)
def test_no_secret_is_in_the_error_about_a_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.DEBUG), pytest.raises(InvalidSettings) as caught:
        WorkerSettings()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__
    assert SECRET not in caplog.text


def test_the_byte_limit_of_a_job_depends_on_how_requests_travel() -> None:
    settings = Settings(max_bytes_per_job=1000, max_inline_bytes_per_job=100)
    assert settings.max_job_bytes(Mode.FILE) == 1000
    assert settings.max_job_bytes(Mode.INLINE) == 100
    assert Settings(max_bytes_per_job=10).max_job_bytes(Mode.INLINE) == 10


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user@host:6379/0", "redis://user@host:6379/0"),
        ("redis://:pw@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://user:pw@host:6379/0?ssl_cert_reqs=none", "redis://user:***@host:6379/0?ssl_cert_reqs=none"),
        ("rediss://user:p%40w@[::1]:6379", "rediss://user:***@[::1]:6379"),
        ("redis://:p@w:x@host/0", "redis://:***@host/0"),
        ("redis://host/0?password=pw&db=1", "redis://host/0?password=***&db=1"),
        ("unix://user:pw@/var/redis.sock", "unix://user:***@/var/redis.sock"),
        ("unix:///var/redis.sock?password=pw", "unix:///var/redis.sock?password=***"),
        ("", ""),
        ("not a url", "not a url"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


PASSWORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: f"<{SECRET}{text}{SECRET}>")


@hypothesis_settings(deadline=None)
@given(st.sampled_from(["", "user"]), PASSWORDS)
def test_no_password_however_odd_is_shown(user: str, password: str) -> None:
    assert SECRET not in without_password(f"redis://{user}:{password}@host:6379/0")


def test_no_password_of_a_list_of_brokers_is_shown() -> None:
    urls = f"sentinel://:{SECRET}@one:26379;sentinel://:{SECRET}@two:26379"
    assert SECRET not in without_password(urls)


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ("poll_first_seconds=20", "poll_max_seconds=10"),
        ("retry_first_seconds=20", "retry_max_seconds=10"),
        ("quota_first_seconds=20", "quota_max_seconds=10"),
        ("delivery_retry_first_seconds=20", "delivery_retry_max_seconds=10"),
        ("clock_tick_seconds=20", "lease_seconds=10"),
        ("lease_seconds=20", "stage_limit_seconds=10"),
        ("provider_timeout_seconds=90", "stage_limit_seconds=80"),
        ("webhook_timeout_seconds=90", "stage_limit_seconds=80"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(shorter: str, longer: str) -> None:
    given = dict(setting.split("=") for setting in (shorter, longer))

    with pytest.raises(InvalidSettings) as caught:
        WorkerSettings(_env_file=None, **given)  # type: ignore[arg-type]  # words, as from the environment

    names = [f"LOWTIDE_{setting.upper()}" for setting in (shorter, longer)]
    assert str(caught.value) == f"{names[0]} is more than {names[1]}: lower the first or raise the second"


def test_a_call_that_carries_much_has_more_time() -> None:
    settings = WorkerSettings(provider_timeout_seconds=60, provider_slowest_bytes_per_second=50_000)

    assert settings.call_seconds(0) == 60
    assert settings.call_seconds(19_000_000) == 60 + 380


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://host",
        "redis://host:6379/0",
        "rediss://user:p%2Fw@[::1]:6379/2?ssl_cert_reqs=none",
        "rediss://host?ssl_ca_certs=/etc/ssl/ca.pem&ssl_check_hostname=false",
        "rediss://host?ssl_cert_reqs=CERT_OPTIONAL",
        "redis://:a:b@host/1",
        "redis://:a@b@host/15",
        "redis:///0",
        "redis://:%@host",
        "sentinel://one:26379?master_name=m",
        "sentinel://:p%3Bw@one:26379;sentinel://[::1];sentinel://three/4?master_name=m&ssl_ca_path=/etc/ssl",
        "sentinel://one/2;sentinel://two/2?master_name=m&sentinel_password=pw&ssl_cert_reqs=none",
    ],
)
def test_a_redis_url_that_can_be_used_is_taken(url: str) -> None:
    assert Settings(redis_url=SecretStr(url)).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa#ss/wo@rd@host",
        "redis://:12/34@host",
        "redis://:12?34@host",
        "redis://:a;b@host",
        "redis://:a\nb@host",
        "redis://:a b@host",
        "redis://:pw[@host",
        "redis://host:99999",
        "redis://host:port",
        "redis://host/zero",
        "redis://host?db=x",
        "localhost",
        "host:6379",
        "http://host",
        "unix:///run/redis.sock",
        "amqp://host//",
        "redis://one;redis://two",
        "sentinel://one;sentinel://two",
        "sentinel://one?master_name=",
        "sentinel://one;two?master_name=m",
        "sentinel://one;redis://two?master_name=m",
        "sentinel://one/1;sentinel://two/2?master_name=m",
        "sentinel://:12@one;sentinel://:34@two?master_name=m",
        "sentinel://one/zero?master_name=m",
        "sentinel://one?master_name=m&db=34",
        "redis://one?master_name=m",
        "\x7f",
    ],
)
def test_a_redis_url_that_cannot_be_used_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("LOWTIDE_REDIS_URL", url)
    with pytest.raises(InvalidSettings) as caught:
        Settings()
    told = str(caught.value)
    assert told.startswith("LOWTIDE_REDIS_URL: ")
    assert "\n" not in told
    for part in ("pa#", "ss/wo", "12", "34", "99999", "zero", "localhost", "sock"):
        assert part not in told


@hypothesis_settings(deadline=None)
@given(PASSWORDS)
def test_a_password_that_is_not_escaped_is_taken_or_refused_and_never_told(password: str) -> None:
    for given_url in (f"redis://:{password}@host:6379/0", f"ftp://user:{password}@host/spool"):
        name = "redis_url" if given_url.startswith("redis") else "spool_url"
        try:
            shown = repr(Settings.model_validate({name: given_url}))
        except InvalidSettings as error:
            shown = f"{error}"
        assert SECRET not in shown


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:pw@host//",
        "amqp://host//#orders",
        "sqs://",
        "rediss://host/2?ssl_ca_certs=/ca.pem#orders",
        "sentinel://:a@x:1;sentinel://y/3?master_name=m#orders",
        "rediss://:a@x:1;rediss://y/3#orders",
        "rediss://x?ssl_cert_reqs=CERT_REQUIRED;rediss://y?ssl_cert_reqs=required",
        "redis://x;redis://y",
    ],
)
def test_a_broker_that_can_be_used_is_taken(url: str) -> None:
    assert WorkerSettings(brokers={"shop": SecretStr(url)}).brokers["shop"].get_secret_value() == url


@pytest.mark.parametrize(
    "value",
    [
        "foo",
        '{"shop": "foo"}',
        '{"shop": "sentinel://:hun@host"}',
        '{"shop": "rediss://:hun@host;redis://other"}',
        '{"shop": "rediss://:hun@host;rediss://other?ssl_ca_certs=/ca.pem"}',
        '{"shop": "rediss://:hun;ter2@host"}',
        '{"shop": "amqp://user:hun/ter2@host//"}',
        "[]",
        '{"shop": ""}',
    ],
)
def test_a_broker_that_cannot_be_used_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LOWTIDE_BROKERS", value)
    with pytest.raises(InvalidSettings) as caught:
        WorkerSettings()
    assert str(caught.value).startswith("LOWTIDE_BROKERS: ")
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "/var/spool",
        "~/spool",
        "./gs:/spool",
        "gs://bucket/a/b",
        "s3://bucket",
        "az://bucket/",
        "file:///x",
        "file:/x",
    ],
)
def test_a_spool_url_is_taken_as_it_is(url: str) -> None:
    assert Settings(spool_url=url).spool_url == url


@pytest.mark.parametrize("key", ["AIzaSECRET\nAIzaSECOND", "AIza SECRET", "AIza\x1bSECRET", "AIza\u00e9SECRET"])
def test_an_api_key_that_is_none_is_refused_and_never_told(key: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        WorkerSettings(_env_file=None, GEMINI_API_KEY=SecretStr(key))

    assert "GEMINI_API_KEY" in str(caught.value) or "GOOGLE_API_KEY" in str(caught.value)
    assert "SEC" not in str(caught.value)


def test_an_api_key_may_have_the_line_end_of_its_file() -> None:
    key = WorkerSettings(_env_file=None, GEMINI_API_KEY=SecretStr(" AIzaKEY\n")).google_api_key

    assert key is not None
    assert key.get_secret_value() == "AIzaKEY"


def test_a_password_in_the_query_of_the_redis_url_is_refused() -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings(_env_file=None, redis_url=SecretStr("redis://host:6379/0?password=hunter2"))

    assert "before the host" in str(caught.value)
    assert "hunter2" not in str(caught.value)
