"""`harp backup` and `harp restore`, on a pool's real processes."""

from __future__ import annotations

from pathlib import Path

from scheduler.cluster import Cluster, end, first_line
from scheduler.test_joining import refused


def test_a_pool_goes_on_from_a_backup_with_its_programs(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, is_new=True)
    try:
        cluster.scheduler("scheduler", "--pool", "lab")
        cluster.server("gpu1", 2)
        attached = cluster.harp("attach", "web1", "--tenant", "default", "--name", "kept", "--wait")
        assert attached.returncode == 0, attached.stderr
        token = cluster.token("--role", "user", "--name", "alice", "--uses", "2")
        assert cluster.join(token, "alice").returncode == 0
        state = ("--state", str(cluster.folder))
        file = str(tmp_path / "pool.backup")
        assert cluster.harp("backup", file, *state).returncode == 0
        program = cluster.run("--gpus", "1")
        assert first_line(program).startswith("using")

        refused(cluster.harp("restore", file, *state), 1, "stop it: harp restore goes first")
        cluster.kill("scheduler")
        refused(cluster.harp("restore", file, *state), 1, "is not empty")
        for stale in cluster.folder.glob("pool.db*"):
            stale.unlink()
        assert cluster.harp("restore", file, *state).returncode == 0
        cluster.scheduler()

        # What the backup knows is there; a later lease is not, and its program is ended for it.
        cluster.wait(
            lambda: (
                [(x["name"], x["state"]) for x in cluster.get("lease")] == [("kept", "Available")]
            ),
            "the attachment is back",
        )
        cluster.wait(lambda: program.poll() is not None, "the program is ended")
        assert end(program)[1].startswith("failed")
        token = token._replace(address=cluster.token("--role", "host").address)
        assert cluster.join(token, "alice2", "--replace").returncode == 0
        refused(cluster.join(token, "alice3", "--replace"), 4, "is used up")
        assert end(cluster.run("--gpus", "1", user="alice2"))[0] == 0
    finally:
        cluster.close()


def test_without_a_pool_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, is_new=True)
    done = cluster.harp("backup", str(tmp_path / "file"), "--state", str(tmp_path / "none"))
    refused(done, 3, "there is no pool in")
    backup = tmp_path / "pool.backup"
    backup.write_text("the last one")
    done = cluster.harp("backup", str(backup), "--database", str(tmp_path / "typo.db"))
    refused(done, 3, "there is no pool in")
    assert backup.read_text() == "the last one"
    done = cluster.harp("restore", str(tmp_path / "file"), "--state", str(tmp_path / "new"))
    refused(done, 1, "there is no backup")
    done = cluster.harp("restore", str(backup), "--state", str(tmp_path / "new"))
    refused(done, 1, "is not a backup of a pool")
    assert not list((tmp_path / "new").iterdir()), "no scheduler starts on an empty database"
