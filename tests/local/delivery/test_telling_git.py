"""A roll-back that a guard made in a pod, and git that hears of it: a job in a clone writes and pushes the branch."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.local.delivery.conftest import Cli, Pod, json

from seatrial.delivery import rollback
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollout import advance
from seatrial.promotion.pointer import pointer_log, read_pointer
from support.harbour import MODEL, ROOT, Harbour
from support.killed_delivery import record_comparisons
from support.repository import git

Clone = Callable[[], AbstractContextManager[Path]]


@pytest.fixture
def remote(rolling: Harbour, pod: Pod, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all clone and push to; staging's guard took the candidate back, and git does not know."""
    place = tmp_path_factory.mktemp("remote")
    git(place, "init", "--quiet", "--bare", "--initial-branch=main")
    rolling.git("push", "--quiet", str(place), "main")
    with pod(rolling):
        reconcile("staging")
        stage = read_pointer(rolling.workspace("staging"), "staging", MODEL).stage
        assert stage is not None
        record_comparisons(rolling.workspace("staging"), stage, failed=True)
        assert advance("staging", git=False)[0].state == "rolled back"
    return place


@pytest.fixture
def clone(
    rolling: Harbour, remote: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Clone:
    """Go into a new clone, as each run of a job does, which has no more than the newest commit of main."""
    monkeypatch.setenv("SEATRIAL_WORKSPACE_STAGING", str(rolling.root / ".seatrial-staging"))

    @contextlib.contextmanager
    def enter() -> Iterator[Path]:
        place = tmp_path_factory.mktemp("clone")
        git(place, "clone", "--quiet", "--depth=1", f"file://{remote}", ".")
        for name, value in (("user.name", "job"), ("user.email", "job@example.com")):
            git(place, "config", name, value)
        with contextlib.chdir(place):
            yield place

    return enter


def branch_of(harbour: Harbour) -> str:
    """Return the name of the branch that says what staging serves."""
    return f"rollback/staging/{MODEL}/{harbour.digests[0][:12]}"


def at_the_remote(remote: Path, branch: str) -> str:
    """Return the commit at the end of a branch at the remote; empty where there is none."""
    return git(remote, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")


def test_a_job_pushes_the_branch_once(rolling: Harbour, remote: Path, clone: Clone, cli: Cli) -> None:
    """The remote gets it from the first run, nothing new from the second one; merged, all agree."""
    before = len(pointer_log(rolling.workspace("staging"), "staging", MODEL).all())
    with clone():
        (told,) = json(cli("tell-git", "staging", "--push", "origin", "--json"))
    pushed = at_the_remote(remote, branch_of(rolling))
    assert (told["branch"]["name"], told["branch"]["commit"], told["new"]) == (
        branch_of(rolling),
        pushed,
        True,
    )
    assert (told["digest"], told["previous"]) == (rolling.digests[0], rolling.digests[1])
    assert "error_share" in told["reason"]

    with clone():
        (again,) = json(cli("tell-git", "staging", "--push", "origin", "--json"))
        _, out, _ = cli("tell-git", "staging", "--push", "origin")
    assert (again["branch"]["commit"], again["new"]) == (pushed, False)
    assert f"serves {rolling.digests[0][:12]} of {MODEL}" in out
    assert f"on the branch {branch_of(rolling)}" in out

    rolling.git("pull", "--quiet", "--no-rebase", str(remote), branch_of(rolling))
    rolling.git("push", "--quiet", str(remote), "main")
    with clone():
        assert "knows of every roll-back in staging" in cli("tell-git", "staging", "--push", "origin")[1]
        assert cli("audit", "staging")[0] == 0
    assert len(pointer_log(rolling.workspace("staging"), "staging", MODEL).all()) == before


def test_what_git_says_to_follow_it_is_not_taken_back(
    rolling: Harbour, remote: Path, clone: Clone, cli: Cli
) -> None:
    """The next promotion is merged upon the roll-back, and has yet to be made: nothing is proposed against it."""
    with clone():
        assert cli("tell-git", "staging", "--push", "origin")[0] == 0
    rolling.git("pull", "--quiet", "--no-rebase", str(remote), branch_of(rolling))
    proposal = rolling.propose("staging")
    assert proposal.branch is not None
    rolling.merge(proposal.branch.name)
    rolling.git("push", "--quiet", str(remote), "main")

    with clone():
        assert json(cli("tell-git", "staging", "--push", "origin", "--json")) == []
    assert cli("reconcile", "staging")[0] == 0
    assert rolling.git("branch", "--list", "rollback/*") == ""


def test_the_branch_follows_main(rolling: Harbour, remote: Path, clone: Clone, cli: Cli) -> None:
    """Where main has moved on meanwhile, what is to be merged is upon that, and has nothing else in it."""
    with clone():
        assert cli("tell-git", "staging", "--push", "origin")[0] == 0
    old = at_the_remote(remote, branch_of(rolling))
    (rolling.root / "README").write_text("more\n")
    rolling.git("add", "README")
    rolling.git("commit", "--quiet", "--message", "Something else")
    rolling.git("push", "--quiet", str(remote), "main")
    with clone():
        assert json(cli("tell-git", "staging", "--push", "origin", "--json"))[0]["new"]

    new = at_the_remote(remote, branch_of(rolling))
    assert new != old
    assert git(remote, "rev-parse", f"{new}^") == rolling.git("rev-parse", "main")
    changed = git(remote, "diff", "--name-only", f"{new}^", new).splitlines()
    assert {Path(path).parts[:4] for path in changed} == {("manifests", "environments", "staging", MODEL)}


def test_one_that_was_killed_before_the_push_is_made_up_for(
    rolling: Harbour, remote: Path, clone: Clone, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch is in the clone and not at the remote: the next run in the same clone pushes it."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with clone():
        with monkeypatch.context() as within:
            within.setattr(rollback, "push_branch", killed)
            assert cli("tell-git", "staging", "--push", "origin")[0] != 0
        assert not at_the_remote(remote, branch_of(rolling))
        assert json(cli("tell-git", "staging", "--push", "origin", "--json"))[0]["new"]

    assert at_the_remote(remote, branch_of(rolling))


def test_a_remote_that_cannot_be_reached_is_said(rolling: Harbour, clone: Clone, cli: Cli) -> None:
    """The error says what git said; without a remote, the branch is written in the clone alone."""
    with clone() as place:
        code, _, err = cli("tell-git", "staging", "--push", "/nowhere")
        assert code == 20
        assert "git ls-remote" in err
        assert "may write branches" in err
        assert cli("tell-git", "staging")[0] == 0
        assert git(place, "branch", "--list", "rollback/*") == branch_of(rolling)


def shipped(job: str, script: str, place: Path, **variables: str) -> str:
    """Run the script of a job in a clone, with our command where the job's set-up puts it; return what it prints."""
    folder = place / ".venv/bin"
    folder.mkdir(parents=True)
    (folder / "seatrial").symlink_to(Path(sys.executable).with_name("seatrial"))
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=place,
        env={**os.environ, "ENVIRONMENT": "staging", **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{job}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_gitlab_is_asked_to_make_a_merge_request(rolling: Harbour, remote: Path, clone: Clone) -> None:
    """The job that we ship pushes the branch with the option by which GitLab makes one, and nothing the second time."""
    git(remote, "config", "receive.advertisePushOptions", "true")
    hook = remote / "hooks/post-receive"
    hook.write_text('#!/bin/sh\necho "$GIT_PUSH_OPTION_0" >> options\n')
    hook.chmod(0o755)
    jobs = YAML(typ="safe").load(ROOT / "manifests/ci/gitlab-ci.yml")
    script = "\n".join(jobs["tell-git"]["script"][1:])
    at_gitlab = {
        "PUSH_TOKEN": "glpat-x",
        "CI_SERVER_HOST": "gitlab.example.com",
        "CI_PROJECT_PATH": "team/models",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://seatrial:glpat-x@gitlab.example.com/team/models.git",
    }
    for _ in range(2):
        with clone() as place:
            assert branch_of(rolling) in shipped("tell-git", script, place, **at_gitlab)

    assert at_the_remote(remote, branch_of(rolling))
    assert (remote / "options").read_text() == "merge_request.create\n"


def test_github_is_asked_for_one_pull_request(
    rolling: Harbour, remote: Path, clone: Clone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The job that we ship asks for one where none is open, with what the record says as its text."""
    tools = tmp_path_factory.mktemp("tools")
    asked = tools / "asked"
    open_ones = f'if [ "$2" = list ]; then ls {tools} | grep -c asked || true'
    (tools / "gh").write_text(f'#!/bin/sh\n{open_ones}; else printf "%s\\n" "$@" >> {asked}; fi\n')
    (tools / "gh").chmod(0o755)
    jobs = YAML(typ="safe").load(ROOT / "manifests/ci/github-actions.yml")
    script = jobs["jobs"]["tell-git"]["steps"][-1]["run"]
    for _ in range(2):
        with clone() as place:
            shipped("tell-git", script, place, PATH=f"{tools}:{os.environ['PATH']}")

    said = asked.read_text()
    assert said.startswith(f"pr\ncreate\n--head\n{branch_of(rolling)}\n--title\nstaging serves {MODEL} ")
    assert said.count("--head") == 1
    assert "error_share is 1.0" in said
    assert at_the_remote(remote, branch_of(rolling))


def test_where_nothing_went_back_there_is_nothing_to_tell(harbour: Harbour, cli: Cli) -> None:
    """An environment that only ever went forward, or serves nothing."""
    assert json(cli("tell-git", "staging", "--json")) == []
    harbour.train(harbour.digests[0])
    harbour.deliver("staging")
    assert json(cli("tell-git", "staging", "--json")) == []
