"""What the webhooks decide without a network: addresses, signatures, forms, filters, pauses, settings."""

import json
import re
import socket
import tomllib
from ipaddress import ip_address

import pytest
from conftest import PROJECT
from hypothesis import given
from hypothesis import strategies as st
from webhook_receiver import SECRET, drift_event

from streams import cloudevents
from streams.decisions import Decision, Outcome
from streams.draft import CHANGED, DETECTED, RESOLVED
from streams.errors import UserError
from streams.settings import Settings, load_settings
from streams.webhooks import client
from streams.webhooks.backoff import CAP_S, RETRY_AFTER_MAX_S, is_past, pause_s, retry_after_s
from streams.webhooks.client import Fate, fate_of
from streams.webhooks.endpoints import Endpoint, Format
from streams.webhooks.filters import wants
from streams.webhooks.formats import body_of
from streams.webhooks.guard import RefusedAddressError, RefusedError, check_url, guarded_socket, is_public
from streams.webhooks.notice import TEXT_MAX, notice_of
from streams.webhooks.signing import key_of, signature_headers
from streams.webhooks.store import digest_of
from streams.webhooks.target import Target, target_of

EXPIRED = Decision(Outcome.EXPIRED, "no decision within 900 s", 1_300_000_000, request_id="r").to_event("/s/")


def endpoint(**given) -> Endpoint:
    return Endpoint(**{"url": "https://hooks.example/in", "secret_env": "HOOK_SECRET"} | given)


# -- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%2", "fc00::1",
        "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "2001:10::1", "100::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
        "64:ff9b:1::808:808", "2002:7f00:1::", "2002:c0a8:101::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "3fff::1", "3fff:fff::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(ip_address(address))
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))
    with pytest.raises(RefusedAddressError):
        guarded_socket(allowed=False)(place)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_addresses_that_are_public(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/", "ftp://hooks.example/", "file:///etc/passwd", "https://", "hooks.example",
        "https://user:pw@hooks.example/", "https://user@hooks.example/", "https://127.0.0.1/",
        "https://2130706433/", "https://0x7f000001/", "https://017700000001/", "https://0177.0.0.1/",
        "https://127.1/", "https://0x7f.1/", "https://10.0.0.0x1/", "https://1.2.3.4.5/", "https://[::1]/",
        "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[fe80::1%25eth0]/",
        "https://[64:ff9b::a00:1]/", "https://169.254.169.254/latest/meta-data", "https://127.0.0.1./",
        "https://a.example:99999/", "https://a.example:0/", "https://a.example\\@127.0.0.1/",
        "https://a.example\t/", "https://a.example/\r\nX: y", "https://ex\u3002ample/", "https://%6c/",
        "https://\u2488.example/", "https://[::1", "https://192.168.0.1:8443/x",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url):
    with pytest.raises(RefusedError) as refused:
        check_url(url, ())
    assert "pw" not in str(refused.value)


def test_hosts_that_are_named_may_be_inside_and_without_tls():
    for url in ("http://127.0.0.1:9/", "https://10.1.2.3/", "http://[::1]:80/", "http://hooks.lan/x"):
        assert check_url(url, ("127.0.0.1", "10.1.2.3", "[::1]", "HOOKS.lan"))
    with pytest.raises(RefusedError):
        check_url("http://127.0.0.2/", ("127.0.0.1",))
    with pytest.raises(RefusedError):  # no suffixes: a name is a name
        check_url("http://evil.hooks.lan/", ("hooks.lan",))
    assert check_url("https://hooks.example:8443/a?b=c", ())


# -- signatures


def test_the_published_vector_of_standard_webhooks():
    headers = signature_headers(
        [key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_sign_both():
    one, two = b"1" * 32, b"2" * 32
    both = signature_headers([one, two], "id", 7, b"x")["webhook-signature"].split()
    assert both == [signature_headers([key], "id", 7, b"x")["webhook-signature"] for key in (one, two)]


@pytest.mark.parametrize("secret", ["whsec_short", "whsec_" + "A" * 12, "not base64!", "whsec_" + "A" * 200])
def test_secrets_that_are_none_are_refused_unseen(secret):
    with pytest.raises(ValueError, match="signing secret") as refused:
        key_of(secret)
    assert secret not in str(refused.value)


# -- pauses


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_any_part_of_a_bound_that_doubles(failures, share):
    assert 0 <= pause_s(failures, share) <= min(CAP_S, 2.0 ** min(failures - 1, 30))
    assert pause_s(failures, 0.5) <= pause_s(failures + 1, 0.5)


@given(st.text(max_size=40), st.floats(0, 4e9))
def test_retry_after_is_bounded_whatever_it_says(text, now):
    assert 0 <= retry_after_s(text, now) <= RETRY_AFTER_MAX_S


def test_a_delivery_is_given_up_past_the_horizon_but_not_before_some_tries():
    late = {"queued_at_s": 0.0, "next_try_s": 101.0, "horizon_s": 100.0}
    assert [is_past(**late, failures=n) for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert not is_past(queued_at_s=0.0, next_try_s=99.0, horizon_s=100.0, failures=50)


@pytest.mark.parametrize(
    ("statuses", "fate"),
    [
        ((200, 201, 202, 204, 299), Fate.DELIVERED),
        ((408, 429, 500, 502, 503, 504, 599), Fate.AGAIN),
        ((301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422), Fate.DEAD),
    ],
)
def test_what_an_answer_means(statuses, fate):
    assert {fate_of(status) for status in statuses} == {fate}


# -- filters


@pytest.mark.parametrize(
    ("given_filter", "event", "told"),
    [
        ({}, drift_event(kind=CHANGED), True),
        ({"types": ("clv.drift.*",)}, drift_event(), True),
        ({"types": ("clv.drift.*",)}, EXPIRED, False),
        ({"types": ("clv.model.expired.v1",)}, EXPIRED, True),
        ({"min_severity": "warning"}, drift_event(kind=CHANGED), False),
        ({"min_severity": "warning"}, drift_event(), True),
        ({"min_severity": "warning"}, drift_event(kind=RESOLVED), True),  # it closes what was told
        ({"min_severity": "warning"}, EXPIRED, True),
        ({"features": ("AvgUnitPrice",)}, drift_event(), True),
        ({"features": ("Monetary",)}, drift_event(), False),
        ({"features": ("Monetary",)}, drift_event(kind=RESOLVED, causes=[]), True),
        ({"features": ("Monetary",)}, EXPIRED, False),
        ({"format": "pagerduty"}, drift_event(), True),
        ({"format": "pagerduty"}, drift_event(kind=CHANGED), False),
        ({"format": "pagerduty"}, drift_event(kind=CHANGED, action="ask"), True),
        ({"format": "alertmanager"}, EXPIRED, False),
    ],
)
def test_who_is_told(given_filter, event, told):
    assert wants(endpoint(**given_filter), event) is told


# -- forms

HOSTILE = "<!channel> <http://evil|here> *b* `c` [x](http://evil) {{DATE(1)}} &amp; \u202egnp \x1b[31m\r\n"


def texts_in(value) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_in(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_in(inner)]
    return [value] if isinstance(value, str) else []


def hostile_event(kind: str = DETECTED):
    cause = {"feature": HOSTILE, "scale_weeks": 1, "segment": f"Country={HOSTILE}", "effect": 1, "unit": "x"}
    return drift_event(kind=kind, causes=[cause], reason=HOSTILE * 50)


@pytest.mark.parametrize("kind", list(Format))
def test_every_form_is_json_and_the_same_each_time(kind):
    for event in (drift_event(), hostile_event(RESOLVED), digest_of([drift_event(1), hostile_event()])):
        body = body_of(kind, event, "key")
        assert body == body_of(kind, event, "key")
        assert isinstance(json.loads(body.content), dict)


def test_a_cloudevent_is_the_event_itself():
    event = drift_event()
    body = body_of(Format.CLOUDEVENTS, event)
    assert body.content == cloudevents.encode(event)
    assert body.content_type == "application/cloudevents+json"


def test_slack_shows_texts_and_obeys_none():
    message = json.loads(body_of(Format.SLACK, hostile_event()).content)
    texts = texts_in(message)
    assert any("!channel" in text for text in texts)
    for text in texts:
        assert not set("<>`~") & set(text)
        assert text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").count("&") == 0
        assert text.isprintable()
    shown = [block["text"] for block in message["blocks"] if block["type"] == "section"]
    assert all(text["verbatim"] and len(text["text"]) <= 3_000 for text in shown)
    assert message["text"] == "[warning] Drift detected: the customers"
    causes = [text["text"] for text in shown if text["text"].startswith("Causes")]
    assert "*" not in causes[0]


def test_slack_stays_within_its_blocks():
    many = digest_of([drift_event(n) for n in range(100)])
    message = json.loads(body_of(Format.SLACK, many).content)
    assert len(message["blocks"]) <= 50
    assert "and 60 more" in texts_in(message)


def test_teams_has_texts_only_where_no_markdown_is_read():
    message = json.loads(body_of(Format.TEAMS, hostile_event()).content)
    (attachment,) = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    blocks = attachment["content"]["body"]
    assert {block["type"] for block in blocks} == {"RichTextBlock"}
    runs = [run for block in blocks for run in block["inlines"]]
    assert {run["type"] for run in runs} == {"TextRun"}
    assert any("evil" in run["text"] for run in runs)
    assert all("{" not in run["text"] and run["text"].isprintable() for run in runs)
    large = digest_of([hostile_event() for _ in range(100)])
    assert len(body_of(Format.TEAMS, large).content) < 28 * 1024


def test_pagerduty_resolves_what_it_triggered():
    first, last = (
        json.loads(body_of(Format.PAGERDUTY, event, "routing").content)
        for event in (drift_event(1), drift_event(5, RESOLVED))
    )
    assert (first["event_action"], last["event_action"]) == ("trigger", "resolve")
    assert first["dedup_key"] == last["dedup_key"]
    assert first["routing_key"] == "routing"
    assert first["payload"]["severity"] == "warning"
    other = json.loads(body_of(Format.PAGERDUTY, drift_event(drift_type="model"), "routing").content)
    assert other["dedup_key"] != first["dedup_key"]
    assert len(first["payload"]["summary"]) <= 1024


def test_alertmanagers_alert_keeps_its_identity_from_firing_to_resolved():
    first, last = (
        json.loads(body_of(Format.ALERTMANAGER, event).content)
        for event in (drift_event(1), drift_event(5, RESOLVED))
    )
    assert (first["status"], last["status"]) == ("firing", "resolved")
    (fired,), (ended,) = first["alerts"], last["alerts"]
    assert fired["labels"] == ended["labels"]
    assert fired["fingerprint"] == ended["fingerprint"]
    assert fired["endsAt"] == "0001-01-01T00:00:00Z" != ended["endsAt"]
    both = json.loads(
        body_of(Format.ALERTMANAGER, digest_of([drift_event(1), drift_event(5, RESOLVED)])).content
    )
    assert [alert["status"] for alert in both["alerts"]] == ["resolved"], "the newest counts"


@given(st.text(), st.floats() | st.none() | st.text())
def test_a_notice_of_anything_is_bounded_and_printable(text, effect):
    cause = {"feature": text, "segment": text, "effect": effect, "unit": text}
    notice = notice_of(drift_event(reason=text, causes=[cause, text, None]))
    assert all(shown.isprintable() and len(shown) <= TEXT_MAX for _, shown in notice.facts)


# -- answers


@pytest.mark.parametrize(
    ("url", "answer", "shown"),
    [
        (
            "https://Hooks.Example.com/services/T0/B0/abcDEF123",
            "no /services/T0/B0/abcDEF123",
            "no /[hidden]",
        ),
        ("https://hooks.example/services/T0/B0/abcDEF123", "bad token abcDEF123!", "bad token [hidden]!"),
        ("https://hooks.example/services/abcDEF123", "bad token ABCdef123", "bad token [hidden]"),
        ("https://hooks.example/a?sig=abcDEF&v=1", "sig abcDEF of v 1", "sig [hidden] of v 1"),
        ("https://hooks.example/a?abcDEF123", "no abcDEF123", "no [hidden]"),
        ("https://hooks.example/a?sig=ab%2Fcd%2Bef", "bad ab/cd+ef", "bad [hidden]"),
        ("https://hooks.example/a?sig=ab%2Fcd%2Bef", "bad ab%2fcd%2Bef", "bad [hidden]"),
        ("https://hooks.example/a?sig=abc+defg", "bad abc defg", "bad [hidden]"),
        ("https://hooks.example/a%20secret", "no /a secret", "no /[hidden]"),
        (
            "https://hooks.example/bot12345:abcDEF123/send",
            "no bot with 12345:abcDEF123",
            "no bot with 12345:[hidden]",
        ),
        ("https://hooks.example/T0/abcDEF123", r'{"path":"\/T0\/abcDEF123"}', r'{"path":"\/T0\/[hidden]"}'),
        (
            "https://hooks.example/T0/abcDEF123",
            "a cut answer ends in abcDEF1",
            "a cut answer ends in [hidden]",
        ),
        ("https://hooks.example/in", "not in the mood", "not in the mood"),
        ("https://hooks.example", "no such host", "no such host"),
    ],
)
def test_an_answer_that_repeats_the_url_shows_no_part_of_it(url, answer, shown):
    assert client._hidden(answer, Target("hooks.example", False, url, (), "")) == shown


def test_an_answer_that_repeats_the_routing_key_is_shown_without_it():
    target = Target("events.example", False, "https://events.example/v2", (), "R0")
    assert client._hidden("unknown key R0", target) == "unknown key [hidden]"


@given(st.text("abXY01%/?&=:+-.", min_size=6), st.text())
def test_no_answer_shows_the_path_of_a_url(path, answer):
    secret = path.lstrip("/")
    target = Target("hooks.example", False, f"https://hooks.example/{path}", (), "")
    shown = client._hidden(f"{answer}{path}{answer}", target)
    assert len(secret) < client.SECRET_CHARACTERS_MIN or secret not in shown


# -- settings


@pytest.mark.parametrize(
    ("given_settings", "problem"),
    [
        ({"url_env": "X"}, "exactly one of url"),
        ({"url": None}, "exactly one of url"),
        ({"format": "slack"}, "is a secret"),
        ({"url": "http://hooks.example/"}, "allow_hosts only"),
        ({"url": "https://10.0.0.1/"}, "not a public address"),
        ({"secret_env": None}, "needs secret_file or secret_env"),
        ({"secret_file": "x"}, "one of secret_file and secret_env"),
        ({"secret": "whsec_inline"}, "Extra inputs"),
        ({"secret_env": "CLV_DRIFT_SECRET"}, "begins with CLV_DRIFT_"),
        ({"format": "pagerduty", "max_per_hour": 5}, "no digest"),
    ],
)
def test_settings_that_are_refused(given_settings, problem):
    given_endpoint = {"url": "https://hooks.example/", "secret_env": "S", **given_settings}
    with pytest.raises(UserError, match=problem) as refused:
        load_settings(webhooks={"ops": {k: v for k, v in given_endpoint.items() if v is not None}})
    assert "webhooks.ops" in refused.value.message
    assert "input_value" not in str(refused.value.__cause__), "a traceback shows no input"
    assert "inline" not in refused.value.message


def test_settings_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "settings.toml"
    file.write_text('[webhooks.ops]\nurl = "https://hooks.example/a"\nsecret_file = "/run/secrets/ops"\n')
    monkeypatch.setenv("CLV_DRIFT_CONFIG", str(file))
    assert load_settings().webhooks["ops"].url == "https://hooks.example/a"
    monkeypatch.setenv("CLV_DRIFT_WEBHOOKS", '{"chat": {"format": "slack", "url_env": "CHAT"}}')
    assert load_settings().webhooks["chat"].per_hour_max == 12


def test_the_guides_example_is_one():
    text = (PROJECT / "docs/webhooks.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    settings = Settings(**tomllib.loads(example))
    assert {found.format for found in settings.webhooks.values()} == {"cloudevents", "slack", "pagerduty"}
    keys = re.findall(r"^\| (`[^|]*`) \|", text.partition("| key |")[2].partition("## ")[0], re.MULTILINE)
    named = {name for row in keys for name in re.findall(r"`(\w+)`", row)}
    assert named == set(Endpoint.model_fields)
    formats = set(re.findall(r"^\| `(\w+)` \|", text.partition("## Formats")[2], re.MULTILINE))
    assert formats == set(Format)


def test_secrets_are_looked_up_and_never_shown(tmp_path, monkeypatch):
    place = tmp_path / "secret"
    place.write_text(f"{SECRET}\n{SECRET}\n")
    monkeypatch.setenv("CHAT", "https://hooks.example/T0/very-secret")
    given_endpoint = Endpoint(format="slack", url_env="CHAT", secret_file=place)
    target = target_of("chat", given_endpoint)
    assert len(target.keys) == 2
    for shown in (repr(target), repr(given_endpoint), str(Settings(webhooks={"chat": given_endpoint}))):
        assert "very-secret" not in shown
        assert "MfKQ" not in shown
    place.write_text("whsec_AAAA")
    with pytest.raises(UserError, match="24 to 64 bytes") as refused:
        target_of("chat", given_endpoint)
    assert "AAAA" not in refused.value.message
    place.write_text(" ".join([SECRET] * 3))
    with pytest.raises(UserError, match="3 secrets"):
        target_of("chat", given_endpoint)
    monkeypatch.setenv("CHAT", "https://10.0.0.1/very-secret")
    with pytest.raises(UserError, match="not a public address") as refused:
        target_of("chat", given_endpoint)
    assert "very-secret" not in refused.value.message
    monkeypatch.delenv("CHAT")
    with pytest.raises(UserError, match="the variable CHAT"):
        target_of("chat", given_endpoint)
