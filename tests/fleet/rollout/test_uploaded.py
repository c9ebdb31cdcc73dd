"""Uploaded releases and rollouts: what is collected, what a plan says, who serves which robot."""

import asyncio
import os
import time
from contextlib import asynccontextmanager

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.release.manifest import encode, id_of
from dorafleet.coordinator.audit import read_rows
from dorafleet.coordinator.keptreleases import RECENT_S, UPLOADED, Uploaded
from dorafleet.release.supply import Supply
from dorafleet.release.uploads import Uploads
from dorafleet.rollout import messages as r
from tests.fleet.control.serving import leading
from tests.release.samples import sign

from .site import ID1, ID2, ID3, ONE, THREE, TWO, Site, machines, strategy

MANIFESTS = {ID1: ONE, ID2: TWO, ID3: THREE}


class Folder(Uploads):
    """A folder in which releases are complete without an upload."""

    def put(self, id_, age=0.0):
        manifest = MANIFESTS[id_]
        names = [file.path.removesuffix(".py") for file in manifest.files]
        texts = {"camera": "1", "grip": str(manifest.sequence), "dataflow.yml": "camera grip"}
        for file, name in zip(manifest.files, names, strict=True):
            path = self.store.objects.path(file.object)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[name])
        content = encode(manifest)
        assert id_of(content) == id_
        self.store.add(content, sign(content))
        then = time.time() - age
        os.utime(self.store.manifests / id_, (then, then))

    @property
    def releases(self):
        return {each.release for each in self.kept() if each.complete}


@asynccontextmanager
async def site(folder, robots=2, **options):
    uploads = Folder(folder / "uploads")
    supply = Supply(uploads.store)
    async with leading(
        folder, machines(robots), supply=supply, uploads=uploads, **options
    ) as fleet:
        one = Site(fleet)
        one.uploads = uploads
        await one.register()
        yield one


async def rows(one):
    found = await one.fleet.call("release.stored")
    return {each.label: each for each in found.releases}


async def test_only_what_nothing_needs_is_collected_and_the_audit_says_so(tmp_path):
    async with site(tmp_path) as one:
        await one.connect("r1", "r2")
        await one.runs(ID1)
        for id_ in (ID1, ID2, ID3):
            one.uploads.put(id_, age=RECENT_S + 60.0)
        record = Uploaded(0.0, "ann", "here")
        await put_records(one, dict.fromkeys((ID1, ID3), record))
        number = await one.start("pick@2")
        await one.fleet.control.kept.collect()
        assert one.uploads.releases == {ID1, ID2}
        shown = await rows(one)
        assert shown["pick@1"].needed == "r1, r2 would go back to it"
        assert "rollout 1" in shown["pick@2"].needed
        assert shown.keys() == {"pick@1", "pick@2"}

        await one.until(number, "succeeded", over=True)
        await one.fleet.control.kept.collect()
        # It is over: the newest one can still be undone.
        assert one.uploads.releases == {ID1, ID2}
        assert (await rows(one))["pick@2"].needed == "desired on r1, r2"
        number = await one.start("pick@3")
        await one.until(number, "succeeded", over=True)
        one.uploads.put(ID3)
        await one.fleet.control.kept.collect()
        assert one.uploads.releases == {ID2, ID3}
        audit = [row.record async for row in read_rows(one.fleet.store)]
        gone = [each for each in audit if b'"release.collect"' in each]
        assert [ID3.encode() in gone[0], ID1.encode() in gone[1]] == [True, True]


async def put_records(one, records):
    import msgspec

    puts = {f"{UPLOADED}{id_}": msgspec.json.encode(each) for id_, each in records.items()}
    async with one.fleet.control.fleet.writer.changing:
        await one.fleet.control.fleet.put_orders({}, {"action": "test"}, puts=puts)
    await one.fleet.control.kept.load()


async def test_no_rollout_starts_between_the_look_and_the_removal(tmp_path, monkeypatch):
    async with site(tmp_path) as one:
        one.uploads.put(ID1, age=RECENT_S + 60.0)
        looking = asyncio.Event()
        go_on = asyncio.Event()
        real = one.fleet.control.kept.needed

        async def needed():
            looking.set()
            await go_on.wait()
            return await real()

        monkeypatch.setattr(one.fleet.control.kept, "needed", needed)
        collecting = asyncio.create_task(one.fleet.control.kept.collect())
        await looking.wait()
        starting = asyncio.create_task(one.start("pick@1"))
        done, _ = await asyncio.wait({starting}, timeout=0.2)
        assert not done
        go_on.set()
        await collecting
        assert await starting == 1
        assert one.uploads.releases == set()  # it went before the rollout, whose rows say so


async def test_a_plan_says_whether_the_coordinator_has_the_files(tmp_path):
    async with site(tmp_path) as one:
        plan = await one.plan("pick@2")
        assert "there is no release" in plan.no_files
        one.uploads.put(ID2)
        one.fleet.control._supply.look_again(ID2)
        plan = await one.plan("pick@2")
        assert plan.no_files == ""
        lacking = await one.fleet.call("release.lacking", r.ReleaseRef(release="pick@2"))
        assert (lacking.sends, lacking.objects, lacking.label) == (True, 0, "pick@2")
        lacking = await one.fleet.call("release.lacking", r.ReleaseRef(release="pick@3"))
        assert (lacking.sends, lacking.objects, lacking.size) == (False, 1, 1)


async def test_what_another_coordinator_has_received_is_named_with_its_machine(tmp_path):
    record = Uploaded(time.time(), "ann", "other-host")
    async with site(tmp_path) as one:
        await put_records(one, {ID2: record})
        lacking = await one.fleet.call("release.lacking", r.ReleaseRef(release="pick@2"))
        assert "it was uploaded to the coordinator on other-host" in lacking.why
        assert (await rows(one))["pick@2"].state == "elsewhere"
        await one.connect("r1", "r2")
        await one.start("pick@2")
        row = (await rows(one))["pick@2"]
        assert (row.state, row.host, row.needed) == ("elsewhere", "other-host", "rollout 1")
    # A record that a bad disk has damaged keeps no coordinator from leading.
    async with site(tmp_path) as one:
        await one.fleet.control.fleet.put_orders(
            {}, {"action": "test"}, puts={f"{UPLOADED}{ID2}": b"?"}
        )
    async with site(tmp_path) as one:
        assert await rows(one) == {}


async def test_a_client_that_does_not_reach_a_robot_leaves_it_to_the_coordinator(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("dorafleet.coordinator.supply.AFTER_S", 0.0)
    monkeypatch.setattr("dorafleet.coordinator.supply.EVERY_S", 0.05)
    sent = []

    async def send(self, release, machine, on_progress=None, connect=None):
        sent.append(machine.id)
        await asyncio.Event().wait()

    monkeypatch.setattr(Supply, "send", send)
    async with site(tmp_path, 3) as one:
        for robot in ("r1", "r2", "r3"):
            agent = await one.fleet.agent(robot)
            agent.releases.has_files = False
        one.uploads.put(ID1)
        number = await one.start("pick@1", strategy=strategy(canary=0, max_parallel=3))
        watch = r.RolloutWatch(rollout=number, sends=True, beyond=["r2"])
        stream = one.fleet.stream("rollout.watch", watch)
        await anext(stream)
        await one.fleet.until(lambda: sent)
        assert sent == ["r2"]
        await stream.aclose()
        with pytest.raises(ControlError, match="at most 10000 robots"):
            await anext(
                one.fleet.stream(
                    "rollout.watch", r.RolloutWatch(rollout=1, sends=True, beyond=["x"] * 10_001)
                )
            )


async def test_a_coordinator_without_a_folder_says_so(tmp_path):
    async with leading(tmp_path, machines(1)) as fleet:
        with pytest.raises(ControlError, match="keeps no files"):
            await fleet.call("release.stored", m.Nothing())
