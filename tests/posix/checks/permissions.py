"""Who may do what: mode classes, sticky and setgid directories, and bits that writing clears."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from functools import partial
from pathlib import Path

from tests.posix import libc
from tests.posix.as_user import ALICE, BOB, GROUP, MEMBER, User, as_user
from tests.posix.expect import (
    exists,
    fails,
    file_clock,
    make_directory,
    make_file,
    mode_of,
    opened,
)
from tests.posix.needs import needs

CREATE = os.O_RDWR | os.O_CREAT


def owned(path: Path, user: User, mode: int, gid: int | None = None) -> Path:
    """The file or directory, given to this user with exactly this mode."""
    os.chown(path, user.uid, user.gid if gid is None else gid)
    os.chmod(path, mode)
    return path


def open_and_close(path: Path, flags: int, mode: int = 0o644) -> None:
    os.close(os.open(path, flags, mode))


def write_byte(path: Path) -> None:
    with opened(path, os.O_WRONLY) as fd:
        os.write(fd, b"x")


@needs("root")
def check_reading_needs_the_read_bit(root: Path) -> None:
    make_file(root / "file", mode=0o733)
    with fails(errno.EACCES):
        as_user(ALICE, lambda: open_and_close(root / "file", os.O_RDONLY))
    with fails(errno.EACCES):
        as_user(ALICE, lambda: open_and_close(root / "file", os.O_RDWR))
    as_user(ALICE, lambda: open_and_close(root / "file", os.O_WRONLY))


@needs("root")
def check_writing_needs_the_write_bit(root: Path) -> None:
    make_file(root / "file", mode=0o755)
    for action in (
        lambda: open_and_close(root / "file", os.O_WRONLY),
        lambda: open_and_close(root / "file", os.O_RDONLY | os.O_TRUNC),
        lambda: os.truncate(root / "file", 0),
    ):
        with fails(errno.EACCES):
            as_user(ALICE, action)
    assert (root / "file").read_bytes() == b"content"


@needs("root")
def check_the_owner_has_only_the_owner_bits(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o077)
    with fails(errno.EACCES):
        as_user(ALICE, (root / "file").read_bytes)
    as_user(BOB, (root / "file").read_bytes)


@needs("root")
def check_the_group_has_only_the_group_bits(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o707, GROUP)
    with fails(errno.EACCES):
        as_user(MEMBER, (root / "file").read_bytes)
    as_user(BOB, (root / "file").read_bytes)


@needs("root")
def check_supplementary_groups_count(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o660, GROUP)
    as_user(MEMBER, lambda: write_byte(root / "file"))
    with fails(errno.EACCES):
        as_user(BOB, lambda: write_byte(root / "file"))


@needs("root")
def check_many_supplementary_groups_count(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o660, GROUP)
    crowd = User(54400, 54400, (*range(60_000, 60_100), GROUP))
    as_user(crowd, lambda: write_byte(root / "file"))


@needs("root")
def check_root_reads_and_writes_everything(root: Path) -> None:
    owned(make_directory(root / "directory"), ALICE, 0o000)
    owned(make_file(root / "directory" / "file"), ALICE, 0o000)
    write_byte(root / "directory" / "file")
    assert (root / "directory" / "file").read_bytes() == b"xontent"


@needs("root", "exec")
def check_executing_needs_an_execute_bit_even_for_root(root: Path) -> None:
    shutil.copyfile("/bin/true", root / "program")
    os.chmod(root / "program", 0o666)
    with fails(errno.EACCES):
        subprocess.run([root / "program"], check=True)
    os.chmod(root / "program", 0o766)
    subprocess.run([root / "program"], check=True)
    with fails(errno.EACCES):
        as_user(ALICE, lambda: os.execv(root / "program", ["program"]))


@needs("root")
def check_passing_a_directory_needs_its_execute_bit(root: Path) -> None:
    make_directory(root / "directory", 0o766)
    make_file(root / "directory" / "file")
    for action in (os.stat, os.unlink, os.listxattr):
        with fails(errno.EACCES):
            as_user(ALICE, partial(action, root / "directory" / "file"))
    with fails(errno.EACCES):
        as_user(ALICE, lambda: os.chdir(root / "directory"))
    as_user(ALICE, lambda: os.listdir(root / "directory"))


@needs("root")
def check_listing_a_directory_needs_its_read_bit(root: Path) -> None:
    make_directory(root / "directory", 0o733)
    make_file(root / "directory" / "file")
    with fails(errno.EACCES):
        as_user(ALICE, lambda: os.listdir(root / "directory"))
    as_user(ALICE, lambda: os.stat(root / "directory" / "file"))


@needs("root")
def check_changing_a_directory_needs_its_write_bit(root: Path) -> None:
    make_directory(root / "there", 0o777)
    owned(make_file(root / "file"), ALICE, 0o666)
    os.mkdir(root / "directory")
    for action in (
        lambda: open_and_close(root / "new", CREATE),
        lambda: os.mkdir(root / "new"),
        lambda: os.mkfifo(root / "new"),
        lambda: os.symlink("target", root / "new"),
        lambda: os.link(root / "file", root / "new"),
        lambda: os.unlink(root / "file"),
        lambda: os.rmdir(root / "directory"),
        lambda: os.rename(root / "file", root / "new"),
        lambda: os.rename(root / "file", root / "there" / "new"),
    ):
        with fails(errno.EACCES):
            as_user(ALICE, action)
    assert sorted(os.listdir(root)) == ["directory", "file", "there"]


@needs("root")
def check_unlinking_needs_no_right_on_the_file(root: Path) -> None:
    os.chmod(root, 0o777)
    make_file(root / "file", mode=0o000)
    as_user(ALICE, lambda: os.unlink(root / "file"))


@needs("root")
def check_moving_a_directory_to_another_parent_needs_to_write_it(root: Path) -> None:
    for parent in ("one", "two"):
        make_directory(root / parent, 0o777)
    make_directory(root / "one" / "directory", 0o755)
    with fails(errno.EACCES):
        as_user(ALICE, lambda: os.rename(root / "one" / "directory", root / "two" / "directory"))
    as_user(ALICE, lambda: os.rename(root / "one" / "directory", root / "one" / "renamed"))


@needs("root")
def check_descriptors_keep_the_rights_of_their_opening(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o600)

    def act() -> None:
        with opened(root / "file", os.O_RDWR) as fd:
            os.fchmod(fd, 0)
            os.pwrite(fd, b"C", 0)
            assert os.pread(fd, 7, 0) == b"Content"
            with fails(errno.EACCES):
                os.open(root / "file", os.O_RDONLY)

    as_user(ALICE, act)


@needs("root")
def check_a_created_file_is_usable_whatever_its_mode(root: Path) -> None:
    os.chmod(root, 0o777)

    def act() -> None:
        with opened(root / "file", CREATE | os.O_EXCL, 0o000) as fd:
            os.write(fd, b"mine")
            os.lseek(fd, 0, os.SEEK_SET)
            assert os.read(fd, 9) == b"mine"

    as_user(ALICE, act)
    assert mode_of(root / "file") == 0


@needs("root")
def check_new_things_belong_to_their_maker(root: Path) -> None:
    os.chmod(root, 0o777)
    user = User(54321, 54399)
    as_user(user, lambda: open_and_close(root / "file", CREATE))
    as_user(user, lambda: os.mkdir(root / "directory"))
    as_user(user, lambda: os.symlink("target", root / "link"))
    as_user(user, lambda: os.mkfifo(root / "fifo"))
    owners = {(os.lstat(root / n).st_uid, os.lstat(root / n).st_gid) for n in os.listdir(root)}
    assert owners == {(54321, 54399)}


@needs("root")
def check_access_asks_for_the_real_user(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o640, GROUP)

    def act() -> None:
        assert os.access(root / "file", os.R_OK)
        assert not os.access(root / "file", os.W_OK)
        assert not os.access(root / "file", os.X_OK)
        assert os.access(root / "file", os.F_OK)
        assert not os.access(root / "missing", os.F_OK)

    as_user(MEMBER, act)


@needs("root")
def check_chmod_belongs_to_the_owner(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o666)
    with fails(errno.EPERM):
        as_user(BOB, lambda: os.chmod(root / "file", 0o777))
    as_user(ALICE, lambda: os.chmod(root / "file", 0o600))
    assert mode_of(root / "file") == 0o600


@needs("root")
def check_chmod_outside_the_group_drops_setgid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o644, GROUP)
    as_user(ALICE, lambda: os.chmod(root / "file", 0o2755))
    assert mode_of(root / "file") == 0o755
    owned(root / "file", MEMBER, 0o644, GROUP)
    as_user(MEMBER, lambda: os.chmod(root / "file", 0o2755))
    assert mode_of(root / "file") == 0o2755


@needs("root")
def check_chown_of_the_owner_is_for_root(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o666)
    for uid in (BOB.uid, 0):
        with fails(errno.EPERM):
            as_user(ALICE, partial(os.chown, root / "file", uid, -1))
    as_user(ALICE, lambda: os.chown(root / "file", ALICE.uid, -1))
    assert os.stat(root / "file").st_uid == ALICE.uid


@needs("root")
def check_chown_of_the_group_needs_owner_and_membership(root: Path) -> None:
    owned(make_file(root / "file"), MEMBER, 0o666)
    as_user(MEMBER, lambda: os.chown(root / "file", -1, GROUP))
    assert os.stat(root / "file").st_gid == GROUP
    with fails(errno.EPERM):
        as_user(MEMBER, lambda: os.chown(root / "file", -1, ALICE.gid))
    with fails(errno.EPERM):
        as_user(BOB, lambda: os.chown(root / "file", -1, BOB.gid))


@needs("root")
def check_chown_by_a_user_clears_setuid_and_setgid(root: Path) -> None:
    owned(make_file(root / "file"), MEMBER, 0o6755)
    as_user(MEMBER, lambda: os.chown(root / "file", -1, GROUP))
    assert mode_of(root / "file") == 0o755


@needs("root")
def check_chown_by_root_clears_setuid_and_setgid_of_files(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o6755)
    os.chown(root / "file", BOB.uid, BOB.gid)
    assert mode_of(root / "file") == 0o755


@needs("root")
def check_chown_keeps_setgid_without_group_execute(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o6744)
    os.chown(root / "file", BOB.uid, BOB.gid)
    assert mode_of(root / "file") == 0o2744


@needs("root")
def check_chown_keeps_the_bits_of_directories(root: Path) -> None:
    owned(make_directory(root / "directory"), ALICE, 0o7755)
    os.chown(root / "directory", BOB.uid, BOB.gid)
    assert mode_of(root / "directory") == 0o7755


@needs("root")
def check_writing_by_another_clears_setuid_and_setgid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o6777)
    as_user(BOB, lambda: write_byte(root / "file"))
    assert mode_of(root / "file") == 0o777


@needs("root")
def check_writing_by_the_owner_clears_setuid_and_setgid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o6777)
    as_user(ALICE, lambda: write_byte(root / "file"))
    assert mode_of(root / "file") == 0o777


@needs("root")
def check_writing_by_root_keeps_setuid_and_setgid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o6777)
    write_byte(root / "file")
    assert mode_of(root / "file") == 0o6777


@needs("root")
def check_writing_clears_setuid_seen_through_an_open_descriptor(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o4777)
    with opened(root / "file") as fd:
        assert os.fstat(fd).st_mode & stat.S_ISUID
        as_user(BOB, lambda: write_byte(root / "file"))
        assert not os.fstat(fd).st_mode & stat.S_ISUID


@needs("root", "setgid_of_others")
def check_setgid_that_is_not_for_executing_is_cleared_by_who_is_not_in_the_group(
    root: Path,
) -> None:
    def truncate() -> None:
        os.truncate(root / "file", 1)

    for action in (lambda: write_byte(root / "file"), truncate):
        for user, expected in ((BOB, 0o666), (MEMBER, 0o2666)):
            owned(make_file(root / "file"), ALICE, 0o6666, GROUP)
            as_user(user, action)
            assert mode_of(root / "file") == expected, user
            os.unlink(root / "file")


@needs("root")
def check_chown_clears_setid_of_whatever_is_no_directory(root: Path) -> None:
    for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR):
        os.mknod(root / "node", kind | 0o600)
        owned(root / "node", MEMBER, 0o6555)
        as_user(MEMBER, lambda: os.chown(root / "node", -1, GROUP))
        assert mode_of(root / "node") == 0o555, oct(kind)
        os.unlink(root / "node")


@needs("root")
def check_every_write_after_a_chmod_clears_setuid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o777)

    def act() -> None:
        with opened(root / "file", os.O_WRONLY) as fd:
            for _ in range(3):
                os.fchmod(fd, 0o4777)
                os.write(fd, b"x")
                assert not os.fstat(fd).st_mode & stat.S_ISUID

    as_user(ALICE, act)


@needs("root")
def check_truncating_by_another_clears_setuid_and_setgid(root: Path) -> None:
    def ftruncate() -> None:
        with opened(root / "file", os.O_WRONLY) as fd:
            os.ftruncate(fd, 2)

    for action in (lambda: os.truncate(root / "file", 3), ftruncate):
        owned(make_file(root / "file"), ALICE, 0o6777)
        as_user(BOB, action)
        assert mode_of(root / "file") == 0o777


@needs("root")
def check_opening_with_truncate_by_another_clears_setuid_and_setgid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o6777)
    as_user(BOB, lambda: open_and_close(root / "file", os.O_WRONLY | os.O_TRUNC))
    assert mode_of(root / "file") == 0o777


@needs("root")
def check_truncating_by_root_keeps_setuid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o4777)
    os.truncate(root / "file", 3)
    assert mode_of(root / "file") == 0o4777


@needs("root", "fallocate")
def check_fallocate_by_another_clears_setuid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o4777)

    def act() -> None:
        with opened(root / "file", os.O_WRONLY) as fd:
            libc.fallocate(fd, 0, 0, 100_000)

    as_user(BOB, act)
    assert mode_of(root / "file") == 0o777


@needs("root")
def check_copying_into_a_file_clears_setuid(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o4777)
    make_file(root / "source", b"new")

    def act() -> None:
        with opened(root / "source") as source, opened(root / "file", os.O_WRONLY) as target:
            os.copy_file_range(source, target, 3)

    as_user(BOB, act)
    assert mode_of(root / "file") == 0o777
    assert (root / "file").read_bytes() == b"newtent"


@needs("root", "suid", "exec")
def check_a_setuid_program_runs_as_its_owner(root: Path) -> None:
    shutil.copyfile("/usr/bin/id", root / "id")
    owned(root / "id", ALICE, 0o6755)
    for option, number in (("-u", ALICE.uid), ("-g", ALICE.gid)):
        answer = subprocess.run(
            [root / "id", option],
            check=True, capture_output=True, user=BOB.uid, group=BOB.gid, extra_groups=[],
        )  # fmt: skip
        assert int(answer.stdout) == number


@needs("root")
def check_in_a_sticky_directory_only_owners_remove(root: Path) -> None:
    owned(make_directory(root / "sticky"), ALICE, 0o1777)
    owned(make_file(root / "sticky" / "file"), ALICE, 0o666)
    owned(make_directory(root / "sticky" / "directory"), ALICE, 0o777)
    as_user(BOB, lambda: open_and_close(root / "sticky" / "bobs", CREATE))
    for action in (
        lambda: os.unlink(root / "sticky" / "file"),
        lambda: os.rmdir(root / "sticky" / "directory"),
        lambda: os.rename(root / "sticky" / "file", root / "sticky" / "new"),
        lambda: os.rename(root / "sticky" / "bobs", root / "sticky" / "file"),
        lambda: libc.rename(root / "sticky" / "bobs", root / "sticky" / "file", 2),
    ):
        with fails(errno.EPERM, errno.EACCES):
            as_user(BOB, action)
    as_user(BOB, lambda: os.unlink(root / "sticky" / "bobs"))


@needs("root")
def check_in_a_sticky_directory_its_owner_removes_everything(root: Path) -> None:
    owned(make_directory(root / "sticky"), ALICE, 0o1777)
    owned(make_file(root / "sticky" / "bobs"), BOB, 0o600)
    as_user(ALICE, lambda: os.unlink(root / "sticky" / "bobs"))


@needs("root")
def check_in_a_setgid_directory_new_things_get_its_group(root: Path) -> None:
    owned(make_directory(root / "shared"), ALICE, 0o2777, GROUP)
    as_user(BOB, lambda: open_and_close(root / "shared" / "file", CREATE))
    as_user(BOB, lambda: os.mkdir(root / "shared" / "directory"))
    as_user(BOB, lambda: os.symlink("target", root / "shared" / "link"))
    as_user(BOB, lambda: os.mkfifo(root / "shared" / "fifo"))
    for name in ("file", "directory", "link", "fifo"):
        status = os.lstat(root / "shared" / name)
        assert (status.st_uid, status.st_gid) == (BOB.uid, GROUP)


@needs("root")
def check_in_a_setgid_directory_subdirectories_are_setgid(root: Path) -> None:
    owned(make_directory(root / "shared"), ALICE, 0o2777, GROUP)
    as_user(BOB, lambda: os.makedirs(root / "shared" / "one" / "two"))
    for path in (root / "shared" / "one", root / "shared" / "one" / "two"):
        assert mode_of(path) & stat.S_ISGID
        assert os.stat(path).st_gid == GROUP
    as_user(BOB, lambda: open_and_close(root / "shared" / "file", CREATE))
    assert not mode_of(root / "shared" / "file") & stat.S_ISGID


@needs("root")
def check_in_a_setgid_directory_strangers_make_no_setgid_programs(root: Path) -> None:
    owned(make_directory(root / "shared"), ALICE, 0o2777, GROUP)
    os.umask(0)
    as_user(BOB, lambda: open_and_close(root / "shared" / "bobs", CREATE, 0o2755))
    assert mode_of(root / "shared" / "bobs") == 0o755
    as_user(MEMBER, lambda: open_and_close(root / "shared" / "members", CREATE, 0o2755))
    assert mode_of(root / "shared" / "members") == 0o2755


@needs("root")
def check_renaming_into_a_setgid_directory_keeps_the_group(root: Path) -> None:
    owned(make_directory(root / "shared"), ALICE, 0o2777, GROUP)
    make_file(root / "file")
    os.rename(root / "file", root / "shared" / "file")
    assert os.stat(root / "shared" / "file").st_gid == 0


@needs("root")
def check_setting_times_belongs_to_the_owner(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o666)
    as_user(ALICE, lambda: os.utime(root / "file", ns=(1, 2)))
    with fails(errno.EPERM):
        as_user(BOB, lambda: os.utime(root / "file", ns=(3, 4)))
    with fails(errno.EPERM):
        as_user(BOB, lambda: libc.utimens(root / "file", libc.UTIME_OMIT, libc.UTIME_NOW))
    assert os.stat(root / "file").st_mtime_ns == 2


@needs("root")
def check_setting_times_to_now_needs_only_the_write_bit(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o666)
    os.utime(root / "file", ns=(1, 2))
    earliest = file_clock()
    as_user(BOB, lambda: os.utime(root / "file"))
    assert earliest <= os.stat(root / "file").st_mtime_ns <= time.time_ns()
    os.chmod(root / "file", 0o644)
    with fails(errno.EACCES):
        as_user(BOB, lambda: os.utime(root / "file"))


@needs("root")
def check_opening_without_atime_belongs_to_the_owner(root: Path) -> None:
    owned(make_file(root / "file"), ALICE, 0o666)
    with fails(errno.EPERM):
        as_user(BOB, lambda: open_and_close(root / "file", os.O_RDONLY | os.O_NOATIME))
    as_user(ALICE, lambda: open_and_close(root / "file", os.O_RDONLY | os.O_NOATIME))


@needs("root")
def check_rights_taken_away_are_gone_at_once(root: Path) -> None:
    make_directory(root / "directory", 0o755)
    make_file(root / "directory" / "file")
    as_user(ALICE, lambda: os.stat(root / "directory" / "file"))
    os.chmod(root / "directory", 0o700)
    with fails(errno.EACCES):
        as_user(ALICE, lambda: os.stat(root / "directory" / "file"))
    os.chmod(root / "directory", 0o755)
    as_user(ALICE, lambda: os.stat(root / "directory" / "file"))
    assert exists(root / "directory" / "file")


@needs("root")
def check_linking_a_foreign_file_is_bounded_by_its_rights_at_most(root: Path) -> None:
    os.chmod(root, 0o777)
    owned(make_file(root / "open"), ALICE, 0o666)
    owned(make_file(root / "closed"), ALICE, 0o600)
    as_user(BOB, lambda: os.link(root / "open", root / "link"))
    protected = Path("/proc/sys/fs/protected_hardlinks").read_text() == "1\n"
    if protected:
        with fails(errno.EPERM):
            as_user(BOB, lambda: os.link(root / "closed", root / "other"))
