"""`dorad-agent release`: what operators see of the releases on a robot."""

import json

from dorad.agent.folder import releases_folder, signers_folder
from dorad.agent.releasecommand import release as command
from dorad.release.machine import this_machine
from dorad.release.signature import ALLOWED, Signers
from dorad.release.trees import Trees
from tests.release import samples


def test_a_damaged_manifest_hides_no_other_release(tmp_path, capsys):
    folder = tmp_path / "agent"
    signers_folder(folder).mkdir(parents=True)
    (signers_folder(folder) / ALLOWED).write_text(f"ada {samples.public(samples.KEY)}\n")
    trees = Trees(releases_folder(folder), Signers(signers_folder(folder)))
    good, bad = (samples.release(sequence=n, machine=this_machine()) for n in (1, 2))
    for each in (good, bad):
        trees.put_manifest(each.content, each.signature)
    manifest = releases_folder(folder) / "manifests" / bad.id
    manifest.chmod(0o644)
    manifest.write_bytes(bad.content[:-1])
    assert command.main(["list"], obj=folder, standalone_mode=False) == 1
    printed = capsys.readouterr().out
    assert f"{good.id[:12]}  flow 1  2 files are lacking" in printed
    assert f"{bad.id[:12]}  the manifest is not valid" in printed
    assert command.main(["list", "--json"], obj=folder, standalone_mode=False) == 1
    rows = {row["release"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows[good.id]["sequence"], rows[good.id]["problem"]) == (1, "")
    assert "not valid" in rows[bad.id]["problem"]
