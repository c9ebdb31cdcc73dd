"""A real robot at a real coordinator whose store is restored, and restored once more."""

import apsw
import pytest

from tests.agent.fleet import DEADLINE_S, Agent
from tests.agent.test_join import Operator
from tests.harness.commands import Service, run_command
from tests.harness.waiting import until


class Server(Operator):
    """The operator's machine; its store can be replaced by a backup."""

    def __init__(self, folder):
        super().__init__(folder)
        self.folder = folder / "state" / "dorafleet"
        self.backup = folder / "fleet.backup"

    def run(self, *words):
        more = [] if words[0] == "restore" else ["--port", str(self.port)]
        return run_command("dorafleet", [*words, *more], env=self.env, timeout=2 * DEADLINE_S)

    def does(self, *words):
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done

    def restore(self):
        """End the coordinator, fill a new store, and start it again."""
        self.end()
        for path in self.folder.glob("coordinator.db*"):
            path.unlink()
        done = self.does("restore", str(self.backup))
        assert "revocations" in done.stderr
        log = self.backup.with_name("coordinator.log")
        log.unlink()
        self.serving = Service("dorafleet", ["serve", self.file, "--tls"], log, env=self.env)
        self.serving.wait_until_printed("ready")


def known_revocations(agent):
    """Return the revocations that an agent has on its disk, as text."""
    database = apsw.Connection(str(agent.folder / "shares.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return str(database.execute("SELECT revocations FROM term").get)
    finally:
        database.close()


@pytest.mark.long
async def test_after_restores_an_operator_is_asked_and_can_answer_everything(folder):
    server, agent = Server(folder), Agent(folder, folder / "dorad.sock")
    try:
        command, token = server.command_for("arm1")
        assert agent.command(*command, stdin=token).returncode == 0
        agent.start()
        await agent.connection("connected")
        server.does("operator", "add", "ann", "--role", "viewer", "--output", str(folder / "a.pem"))
        server.does("backup", str(server.backup))
        server.does("revoke", "--operator", "ann")
        await until(lambda: "operator ann" in known_revocations(agent))

        server.restore()
        await agent.says("unreachable")
        await until(lambda: " connected " in server.run("status").stdout)
        status = server.run("status")
        assert status.returncode == 1
        assert "question: the store was restored from a backup" in status.stderr
        words = "operator ann was revoked, as it knows, and the store does not"
        assert words in status.stdout
        doctor = server.run("doctor")
        assert doctor.returncode == 1
        assert words in doctor.stdout

        # The next one has a term of the same number, which the robot has obeyed of another.
        server.restore()
        await agent.says("is not obeyed: this robot obeys another coordinator of the same epoch")
        await until(lambda: "`dorafleet takeover arm1`" in server.run("doctor").stdout)
        assert server.does("takeover", "--all").stdout.startswith("arm1: ")
        await until(lambda: " connected " in server.run("status").stdout)
        server.does("revoke", "--operator", "ann")
        assert "follows the audit" in server.does("audit", "acknowledge").stdout
        doctor = server.run("doctor").stdout
        assert "restore:" not in doctor
        assert "was revoked, as it knows" not in doctor
        assert "the audit differs" not in doctor
        assert "question" not in server.run("status").stderr
        assert "audit.acknowledge" in server.does("audit").stdout
        server.end()
    finally:
        agent.clear()
        server.serving.kill()
        server.serving.wait()
