"""The users that nodes run as; no node becomes root by accident."""

import grp
import os
import pwd
import re

import pytest

from dorad.daemon.config import ConfigError, NodeSettings, parse
from dorad.daemon.nodeusers import NodeUsers
from dorad.launch.model import LaunchError

OWN = pwd.getpwuid(os.getuid()).pw_name
OTHER = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid not in (0, os.getuid()))


def settings(text: str) -> NodeSettings:
    return parse(text, "/etc/dorad/dorad.toml").nodes


def on_systemd(text: str) -> NodeUsers:
    return NodeUsers(settings(text), units=True, system=True)


def without_dbus(text: str) -> NodeUsers:
    return NodeUsers(settings(text), system=True, missing="D-Bus is not available (gone)")


def test_nodes_run_as_the_configured_user() -> None:
    users = on_systemd(f'[nodes]\nuser = "{OTHER}"\n')
    assert users.problem() == ""
    assert users.user_for(None) == OTHER
    assert users.user_for(OTHER) == OTHER


def test_a_misspelt_user_is_refused_with_place_and_nearest_name() -> None:
    wrong = f"{OTHER}x"
    users = on_systemd(f'[daemon]\n\n[nodes]\nuser = "{wrong}"\n')
    place = "/etc/dorad/dorad.toml:4:8: nodes.user"
    expected = f"{place}: there is no user `{wrong}` (did you mean `{OTHER}`?)"
    assert users.problem() == expected
    with pytest.raises(LaunchError, match=re.escape(expected)):
        users.user_for(None)


def test_a_node_with_its_own_user_does_not_need_the_misspelt_one() -> None:
    users = on_systemd(f'[nodes]\nuser = "no-such-user"\nusers = ["{OTHER}"]\n')
    assert users.user_for(OTHER) == OTHER


def test_a_missing_package_user_is_refused_with_the_fix() -> None:
    users = NodeUsers(NodeSettings("no-such-user"), units=True, system=True)
    with pytest.raises(LaunchError, match="systemd-sysusers"):
        users.user_for(None)


def test_without_dbus_no_node_runs_as_the_daemon_does() -> None:
    users = without_dbus("")
    with pytest.raises(LaunchError, match="D-Bus is not available"):
        users.user_for(None)
    with pytest.raises(LaunchError, match="D-Bus is not available"):
        without_dbus(f'[nodes]\nusers = ["{OTHER}"]\n').user_for(OTHER)


def test_the_daemon_s_own_user_can_be_named_explicitly() -> None:
    users = without_dbus(f'[nodes]\nuser = "{OWN}"\n')
    assert users.problem() == ""
    assert users.user_for(None) == ""


def test_without_systemd_another_user_is_refused() -> None:
    users = NodeUsers(settings(f'[nodes]\nuser = "{OTHER}"\n'), system=True)
    with pytest.raises(LaunchError, match=r"dorad.toml:2:8: nodes.user: without systemd"):
        users.user_for(None)
    assert NodeUsers(settings(""), system=True).user_for(None) == ""


def test_a_user_that_is_not_listed_is_refused_everywhere() -> None:
    for users in (on_systemd(""), without_dbus(""), NodeUsers(NodeSettings(), system=True)):
        with pytest.raises(LaunchError, match="may not run as user `root`"):
            users.user_for("root")


def test_only_users_of_nodes_may_attach() -> None:
    users = on_systemd(f'[nodes]\nuser = "{OTHER}"\n')
    uid = pwd.getpwnam(OTHER).pw_uid
    assert users.is_user_of([None], "", uid)
    assert not users.is_user_of([None], OWN, uid)
    assert users.is_user_of([None, OTHER], OWN, uid)
    assert not users.is_user_of([OWN], OTHER, uid)
    assert not users.is_user_of([None], "", 2**31 - 5)


def test_each_dataflow_has_its_own_user_unless_the_configuration_sets_one() -> None:
    assert on_systemd("").separate
    assert not on_systemd(f'[nodes]\nuser = "{OTHER}"\n').separate
    assert not without_dbus("").separate
    users = on_systemd(f'[nodes]\nuser = "{OTHER}"\n')
    assert users.user_for(None, OWN) == OWN
    assert users.user_for(OTHER, OWN) == OTHER


def test_no_node_names_the_user_of_another_dataflow() -> None:
    for text in ("", '[nodes]\nusers = ["*"]\n'):
        with pytest.raises(LaunchError, match="may not run as user `dorad-df02`"):
            on_systemd(text).user_for("dorad-df02", "dorad-df01")
    for key in ('user = "dorad-df02"', 'users = ["dorad-df02"]'):
        with pytest.raises(ConfigError, match="which dorad gives to one dataflow"):
            settings(f"[nodes]\n{key}\n")


def test_a_node_gets_only_groups_that_exist_and_are_allowed() -> None:
    group = grp.getgrall()[-1].gr_name
    users = on_systemd(f'[nodes]\ngroups = ["{group}", "{group}x"]\n')
    assert users.groups_for((group,), OTHER) == (group,)
    with pytest.raises(LaunchError, match=rf"no group `{group}x` \(did you mean `{group}`"):
        users.groups_for((f"{group}x",), OTHER)
    with pytest.raises(LaunchError, match="may not have the group `shadow`"):
        users.groups_for(("shadow",), OTHER)


def test_the_user_of_a_dataflow_has_the_groups_of_the_shared_one() -> None:
    users = on_systemd(f'[nodes]\nuser = "{OTHER}"\n')
    entry = pwd.getpwnam(OTHER)
    wanted = {grp.getgrgid(gid).gr_name for gid in os.getgrouplist(OTHER, entry.pw_gid)}
    assert set(users.groups_for((), "dorad-df01")) == wanted
    assert users.groups_for((), OTHER) == ()
