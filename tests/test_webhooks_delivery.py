"""Deliveries to real receivers on this machine: what is tried again, what is given up, what never waits."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from conftest import PROJECT
from typer.testing import CliRunner
from webhook_receiver import SECRET, drift_event, receiving

from streams import cloudevents
from streams.draft import RESOLVED
from streams.errors import ExitCode, UserError
from streams.file_lock import try_exclusive
from streams.kafka_process import free_port
from streams.logs import configure
from streams.settings import Settings
from streams.webhooks import administration, process
from streams.webhooks.client import ANSWER_BYTES_MAX
from streams.webhooks.commands import webhooks
from streams.webhooks.dead_letters import DeadLetterLook
from streams.webhooks.intake import Intake, event_in
from streams.webhooks.metrics import WebhookMetrics
from streams.webhooks.notice import DEAD_LETTERS, DIGEST
from streams.webhooks.sender import Sender
from streams.webhooks.store import FILE, HOUR_S, Store

TOPIC = "clv.drift.events"
KIND_NOBODY_KNOWS = "clv.of.tomorrow.v2"
CLOSED = {"url": "https://hooks.example/", "secret_env": "HOOK_SECRET", "start": "beginning"}


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    # A proxy from the environment must not be used: nothing answers at this one.
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)


class Office:
    """A store and its endpoints, without a broker: events are put in as the intake would."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.metrics = WebhookMetrics(tuple(settings.webhooks))
        self.offset = 0
        self.intake = Intake(settings, store, self.metrics, beat=lambda: None, queued=lambda: None)
        for name in settings.webhooks:
            store.enrol(name, TOPIC, 0)

    def put(self, *events) -> None:
        for event in events:
            value = event if isinstance(event, bytes) else cloudevents.encode(event)
            self.intake.note(TOPIC, self.offset, value)
            self.offset += 1

    def deliver(self, until, *, timeout_s: float = 60.0, jitter: float = 0.02) -> None:
        """Run a task for each endpoint until `until()`; the pauses are `jitter` of their bounds."""

        async def run() -> None:
            senders = [
                Sender(self.settings, name, self.store, self.metrics, jitter=lambda: jitter)
                for name in self.settings.webhooks
            ]
            tasks = [asyncio.create_task(sender.run()) for sender in senders]
            try:
                async with asyncio.timeout(timeout_s):
                    while not until():
                        assert not any(task.done() for task in tasks)
                        await asyncio.sleep(0.01)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(run())

    def is_empty(self) -> bool:
        return all(self.store.queue(name).pending == 0 for name in self.settings.webhooks)

    def tries(self, name: str, outcome: str) -> float:
        return self.metrics.registry.get_sample_value(
            "clv_webhook_tries_total", {"endpoint": name, "outcome": outcome}
        )


@contextmanager
def office(tmp_path, **endpoints):
    settings = Settings(webhooks=endpoints, webhooks_dir=tmp_path)
    with Store(tmp_path) as store:
        yield Office(settings, store)


def at(receiver, **given):
    return {
        "url": receiver.url,
        "secret_env": "HOOK_SECRET",
        "allow_hosts": ["127.0.0.1"],
        "start": "beginning",
        **given,
    }


def test_events_arrive_in_order_signed_and_once(tmp_path):
    events = [drift_event(n) for n in range(5)]
    with receiving() as hook, office(tmp_path, ops=at(hook)) as it:
        it.put(*events, events[2], b"no event", drift_event(7) | {"id": "bad\r\nx: y"})
        it.deliver(it.is_empty)
        assert hook.ids == [event["id"] for event in events]
        assert [got.json for got in hook.got] == events
        assert hook.got[0].headers["content-type"] == "application/cloudevents+json"
        assert it.store.positions(TOPIC) == {"ops": 8}, "what cannot be read is passed over"
        assert it.metrics.registry.get_sample_value("clv_webhook_refused_total") == 2
        it.put(events[0])
        assert it.is_empty(), "what was told of late is not told again"


@pytest.mark.parametrize("bad_id", ["", " ", "a b", "x\n", "\u00e9", "x" * 201, 7, None])
def test_ids_that_are_no_header_are_refused(bad_id):
    with pytest.raises(ValueError, match="id"):
        event_in(cloudevents.encode(drift_event() | {"id": bad_id}))


def test_odd_events_stop_nobody(tmp_path, monkeypatch):
    forged = cloudevents.envelope(kind=DIGEST, source="/s/", window_end=0, data={}, event_id="forged")
    odd = [
        drift_event(1, causes=5),
        drift_event(2, causes=[5, {"feature": []}]),
        drift_event(3, KIND_NOBODY_KNOWS),
    ]
    with receiving() as hook:
        monkeypatch.setenv("CHAT", hook.url)
        chat = at(hook, format="slack", url=None, url_env="CHAT")
        with office(tmp_path, ops=chat) as it:
            it.put(forged, *odd, drift_event(4))
            it.deliver(it.is_empty)
            assert [dead.event_id for dead in it.store.dead()] == [odd[0]["id"]]
            assert "cannot be written as slack" in it.store.dead()[0].problem
            assert len(hook.got) == 3
            assert it.metrics.registry.get_sample_value("clv_webhook_refused_total") == 1


def test_a_type_that_no_event_has_is_named(tmp_path):
    with receiving() as hook, office(tmp_path, ops=at(hook, types=["clv.drift.*", "clv.drfit.*"])) as it:
        with pytest.raises(UserError, match=r"no event is of type 'clv\.drfit") as refused:
            administration.check_any(it.settings)
        assert refused.value.code is ExitCode.USAGE


def test_what_fails_is_tried_again_with_the_same_id_and_nothing_overtakes_it(tmp_path):
    first, second = drift_event(1), drift_event(2)
    with receiving(503, 500, 408, 204) as hook, office(tmp_path, ops=at(hook)) as it:
        it.put(first, second)
        it.deliver(it.is_empty)
        assert hook.ids == [first["id"]] * 4 + [second["id"]]
        assert (it.tries("ops", "again"), it.tries("ops", "delivered")) == (3, 2)


def test_retry_after_is_waited_for(tmp_path):
    with receiving((429, {"Retry-After": "1"}, b"")) as hook, office(tmp_path, ops=at(hook)) as it:
        it.put(drift_event())
        it.deliver(it.is_empty)
        assert hook.got[1].at - hook.got[0].at >= 1


def test_what_is_refused_is_kept_and_sent_again_by_command(tmp_path):
    first, second = drift_event(1), drift_event(2)
    with receiving(404) as hook, office(tmp_path, ops=at(hook)) as it:
        it.put(first, second)
        it.deliver(it.is_empty)
        assert hook.ids == [first["id"], second["id"]]
        (dead,) = administration.dead(it.settings)
        assert (dead["endpoint"], dead["id"], dead["problem"]) == ("ops", first["id"], "answered 404")
        with pytest.raises(UserError, match="no dead delivery") as refused:
            administration.redeliver(it.settings, "ops", "other")
        assert refused.value.code is ExitCode.USAGE
        assert administration.redeliver(it.settings, "ops", first["id"]) == 1
        it.deliver(it.is_empty)
        assert hook.ids[-1] == first["id"]
        assert administration.dead(it.settings) == []


def test_past_the_horizon_a_delivery_is_dead_and_the_next_one_goes(tmp_path):
    with receiving(503, 503, 503) as hook, office(tmp_path, ops=at(hook, horizon_hours=1e-6)) as it:
        it.put(drift_event(1), drift_event(2))
        it.deliver(it.is_empty)
        assert len(hook.got) == 4
        assert "given up after 1e-06 h" in it.store.dead()[0].problem
        assert it.store.dead()[0].failures == 3


def test_a_slow_and_a_dead_endpoint_hold_nobody_up(tmp_path):
    def slow(_handler):
        time.sleep(60)

    events = [drift_event(n) for n in range(10)]
    nobody = f"http://127.0.0.1:{free_port()}/"
    with (
        receiving() as quick,
        receiving(*[slow] * 10) as late,
        office(
            tmp_path,
            a=at(late, timeout_s=1),
            b=at(late, url=nobody),
            c=at(quick),
            d=at(late, timeout_s=60),
        ) as it,
    ):
        it.put(*events)
        it.deliver(lambda: len(quick.got) == 10 and it.tries("a", "again") and it.tries("b", "again") > 2)
        assert not it.tries("d", "again"), "its first try is still under way"
        assert quick.ids == [event["id"] for event in events]
        problems = {name: it.store.head(name).problem for name in "ab"}
        assert problems == {"a": "no answer within 1 s", "b": "no connection: Connection refused"}


def test_redirects_are_not_followed(tmp_path):
    with receiving() as inside:
        away = (307, {"Location": inside.url}, b"")
        with receiving(away) as hook, office(tmp_path, ops=at(hook)) as it:
            it.put(drift_event())
            it.deliver(it.is_empty)
            assert it.store.dead()[0].problem == "answered 307"
            assert inside.got == []


def test_little_is_read_of_an_answer(tmp_path):
    sent = []

    def endless(handler):
        handler.send_response(400)
        handler.end_headers()
        while sum(sent) < 200 * 1024 * 1024:
            handler.wfile.write(b"x" * 65_536)
            sent.append(65_536)

    with receiving(endless) as hook, office(tmp_path, ops=at(hook)) as it:
        it.put(drift_event())
        it.deliver(it.is_empty)
        assert it.store.dead()[0].problem == "answered 400"
        assert ANSWER_BYTES_MAX <= sum(sent) < 20 * 1024 * 1024, "the sockets' buffers, and no more"


def test_more_than_the_limit_becomes_one_digest(tmp_path):
    events = [drift_event(n) for n in range(20)]
    with receiving() as hook, office(tmp_path, ops=at(hook, max_per_hour=3)) as it:
        it.put(*events)
        it.deliver(it.is_empty)
        assert len(hook.got) == 3
        digest = hook.got[-1].json
        assert (digest["type"], digest["data"]["count"]) == (DIGEST, 18)
        told = [got.json["id"] for got in hook.got[:2]] + [one["id"] for one in digest["data"]["events"]]
        assert told == [event["id"] for event in events], "all of them, in their order"
        it.put(drift_event(21), drift_event(22), events[10])
        with pytest.raises(TimeoutError):
            it.deliver(it.is_empty, timeout_s=0.3)
        assert it.store.queue("ops").pending == 2
        assert len(hook.got) == 3, "no message more in this hour"
        it.store._db.execute("UPDATE sent SET sent_at = sent_at - ?", (HOUR_S,))
        it.deliver(it.is_empty)
        assert len(hook.got) == 5


def test_a_digest_that_failed_keeps_its_id_while_more_comes(tmp_path):
    with receiving(503) as hook, office(tmp_path, ops=at(hook, max_per_hour=1)) as it:
        it.put(drift_event(1), drift_event(2))
        it.deliver(lambda: it.tries("ops", "again") == 1, jitter=0.99)
        it.put(drift_event(3))
        it.deliver(lambda: it.tries("ops", "delivered") == 1)
        assert len(set(hook.ids)) == 1
        assert hook.got[1].json["data"]["count"] == 2


def test_what_waits_in_a_digest_is_not_told_beside_it(tmp_path):
    with receiving(503) as hook, office(tmp_path, ops=at(hook, max_per_hour=1)) as it:
        it.put(drift_event(1), drift_event(2))
        it.deliver(lambda: it.tries("ops", "again") == 1, jitter=0.99)
        it.put(drift_event(1), drift_event(2))  # a worker that was killed says them again
        assert it.store.queue("ops").pending == 1


def test_a_secret_is_changed_without_a_restart(tmp_path):
    place = tmp_path / "secret"
    place.write_text(SECRET)
    other = "whsec_" + "QUJD" * 8
    with receiving() as hook, office(tmp_path, ops=at(hook, secret_env=None, secret_file=str(place))) as it:
        it.put(drift_event(1))
        it.deliver(it.is_empty)
        place.write_text(f"{other}\n{SECRET}\n")
        it.put(drift_event(2))
        it.deliver(it.is_empty)
        assert [len(got.headers["webhook-signature"].split()) for got in hook.got] == [1, 2]


def test_an_address_inside_is_refused_when_it_is_connected_to(tmp_path):
    with receiving() as hook:
        # A name that leads inside, as one could that changes between a check and the connection.
        inside = at(hook, url=f"https://localhost:{hook.port}/", allow_hosts=[])
        with office(tmp_path, ops=inside) as it:
            it.put(drift_event())
            it.deliver(lambda: it.tries("ops", "again") >= 1)
            assert "address is not public" in it.store.head("ops").problem
        assert hook.got == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    place = tmp_path_factory.mktemp("tls")
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-subj", "/CN=hook", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    try:
        subprocess.run(
            [*request, *names, "-keyout", place / "key.pem", "-out", place / "cert.pem"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    return place / "cert.pem", context


def test_certificates_are_verified(tmp_path, certificate):
    cert, context = certificate
    with receiving(tls=context) as hook:
        local = at(hook, url=f"https://localhost:{hook.port}/", allow_hosts=["localhost"])
        other_name = at(
            hook, url=f"https://127.0.0.1:{hook.port}/", ca_file=str(cert), allow_hosts=["127.0.0.1"]
        )
        with office(tmp_path, unknown=local, known=local | {"ca_file": str(cert)}, misnamed=other_name) as it:
            it.put(drift_event())
            it.deliver(
                lambda: it.tries("unknown", "again") and it.tries("misnamed", "again") and len(hook.got)
            )
            for name in ("unknown", "misnamed"):
                assert "TLS" in it.store.head(name).problem
        assert len(hook.got) == 1


def test_the_test_message_tells_how_it_went(tmp_path, monkeypatch):
    with receiving(204, (400, {}, b"no_such_channel for T0/very-secret")) as hook:
        monkeypatch.setenv("CHAT", f"http://127.0.0.1:{hook.port}/T0/very-secret")
        chat = {"format": "slack", "url_env": "CHAT", "allow_hosts": ["127.0.0.1"]}
        settings = Settings(webhooks={"chat": chat}, webhooks_dir=tmp_path)
        assert "took the message: 204" in administration.test(settings, "chat")
        assert "A test message" in hook.got[0].json["text"]
        with pytest.raises(UserError, match=r"no_such_channel for \[hidden") as refused:
            administration.test(settings, "chat")
        assert "very-secret" not in refused.value.message
        with pytest.raises(UserError, match="there is no webhook 'other'"):
            administration.test(settings, "other")


def test_no_secret_is_logged(tmp_path, monkeypatch, own_logging):
    said = (tmp_path / "log").open("w+")
    with receiving(503, 404) as hook:
        monkeypatch.setenv("CHAT", f"http://127.0.0.1:{hook.port}/T0/very-secret")
        monkeypatch.setenv("GONE", f"http://127.0.0.1:{free_port()}/T0/very-secret")
        monkeypatch.setenv("NOWHERE", "https://no-such-host.invalid/T0/very-secret")
        chat = {
            "format": "slack",
            "allow_hosts": ["127.0.0.1"],
            "start": "beginning",
            "secret_env": "HOOK_SECRET",
        }
        endpoints = {name.lower(): chat | {"url_env": name} for name in ("CHAT", "GONE", "NOWHERE")}
        with office(tmp_path, **endpoints) as it:
            configure(it.settings.model_copy(update={"log_level": "DEBUG"}), process="webhooks", stream=said)
            it.put(drift_event(1))
            it.deliver(
                lambda: all(it.tries(name, "again") for name in endpoints) and it.tries("chat", "dead")
            )
    said.seek(0)
    lines = said.read()
    assert "not delivered" in lines
    assert "127.0.0.1" in lines
    for secret in ("very-secret", "MfKQ9r8"):
        assert secret not in lines
        for path in tmp_path.iterdir():
            assert secret.encode() not in path.read_bytes(), path


def test_a_damaged_file_and_one_of_another_release_are_named(tmp_path):
    with Store(tmp_path) as store:
        store._db.execute("PRAGMA user_version = 9")
    with pytest.raises(UserError, match="of form 9") as refused:
        Store(tmp_path)
    assert refused.value.code is ExitCode.STATE
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match="is damaged") as refused:
        Store(tmp_path)
    assert refused.value.code is ExitCode.STATE


def test_a_new_endpoint_begins_where_it_is_enrolled_and_others_are_not_told_twice(tmp_path):
    with receiving() as hook, office(tmp_path, old=at(hook), new=at(hook)) as it:
        it.store.move("new", TOPIC, 2)
        it.put(drift_event(0), drift_event(1), drift_event(2))
        assert (it.store.queue("old").pending, it.store.queue("new").pending) == (3, 1)
        it.offset = 1
        it.put(drift_event(11), drift_event(12))  # another log, read again from an earlier place
        assert (it.store.queue("old").pending, it.store.queue("new").pending) == (3, 1)


def test_the_example_receiver_takes_each_event_once_and_what_is_genuine(tmp_path):
    env = os.environ | {"RECEIVER_SECRET": SECRET}
    process = subprocess.Popen(
        [sys.executable, PROJECT / "docs/examples/receiver.py", "0"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = json.loads(process.stdout.readline())["listening"]
        good = {
            "url": f"http://127.0.0.1:{port}/",
            "allow_hosts": ["127.0.0.1"],
            "secret_env": "HOOK_SECRET",
            "start": "beginning",
        }
        os.environ["OTHER_SECRET"] = "whsec_" + "QUJD" * 8
        with office(
            tmp_path, good=good | {"max_per_hour": 2}, forged=good | {"secret_env": "OTHER_SECRET"}
        ) as it:
            events = [drift_event(1), drift_event(2), drift_event(3, RESOLVED)]
            it.put(*events)
            it.deliver(it.is_empty)
            assert {dead.problem for dead in it.store.dead()} == {"answered 401"}
            assert len(it.store.dead()) == 3
            it.store._db.execute("DELETE FROM sent")
            it.put(events[0])  # as after a crash between a delivery and its note
            it.deliver(it.is_empty)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
        os.environ.pop("OTHER_SECRET", None)
    assert [json.loads(line)["id"] for line in said.splitlines()] == [event["id"] for event in events]


def test_dead_letters_are_told_by_number_and_never_twice(tmp_path):
    with receiving() as hook, office(tmp_path, ops=at(hook)) as it:
        look = DeadLetterLook(it.settings, it.store, queued=lambda: None)
        look.note({0: 5, 1: 7}, now=1_300_000_000)  # what was there before anybody looked
        look.note({0: 5, 1: 7}, now=1_300_000_300)
        assert it.is_empty()
        look.note({0: 6, 1: 9}, now=1_300_000_600)
        DeadLetterLook(it.settings, it.store, queued=lambda: None).note({0: 6, 1: 9}, now=1_300_000_601)
        look.note({0: 1, 1: 9}, now=1_300_000_900)  # a topic that was made anew
        it.deliver(it.is_empty)
        (got,) = hook.got
        assert got.json["type"] == DEAD_LETTERS
        assert got.json["data"]["count"] == 3
        assert got.json["data"]["partitions"][1] == {"partition": 1, "first_offset": 7, "next_offset": 9}


def test_only_one_process_delivers_from_a_directory(tmp_path):
    settings = Settings(webhooks_dir=tmp_path)
    held = try_exclusive(tmp_path / process.LOCK)
    try:
        with pytest.raises(UserError, match="another process delivers") as refused:
            process.run(settings, WebhookMetrics(()), lambda: None)
    finally:
        os.close(held)
    assert refused.value.code is ExitCode.STATE


def test_commands_name_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    for arguments in (["test", "ops"], ["redeliver", "ops"]):
        failed = runner.invoke(webhooks, arguments)
        assert isinstance(failed.exception, UserError)
        assert failed.exception.code is ExitCode.USAGE
    assert runner.invoke(webhooks, ["dead"]).output == "no dead delivery\n"
    with office(tmp_path / "var/webhooks", ops=CLOSED) as it:
        it.put(drift_event())
        it.store.give_up(it.store.head("ops"), "answered [bold]404")
    monkeypatch.setenv("CLV_DRIFT_WEBHOOKS", json.dumps({"ops": CLOSED}))
    assert "answered [bold]404" in " ".join(runner.invoke(webhooks, ["dead"]).output.split())
    (told,) = json.loads(runner.invoke(webhooks, ["dead", "--json"]).output)
    assert runner.invoke(webhooks, ["redeliver", "ops", "--id", told["id"]]).output.startswith("1 put back")
