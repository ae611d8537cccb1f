//! Finds the process's control groups from `/proc/self/cgroup` and `/proc/self/mountinfo`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
}

impl Controller {
    fn name(self) -> &'static [u8] {
        match self {
            Controller::Memory => b"memory",
            Controller::Cpu => b"cpu",
        }
    }
}

/// The version of the file formats. On a hybrid system each controller has its own version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The process's group for a controller.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) version: Version,
    mount_point: PathBuf,
    /// The directory of the group. Its path starts with the mount point.
    directory: PathBuf,
}

impl Group {
    /// Finds the group of a controller. A container finds it only in the part of the tree that is mounted for it.
    pub(super) fn find(
        controller: Controller,
        memberships: &[u8],
        mounts: &[u8],
        root: &Path,
    ) -> Option<Self> {
        let (version, group) = membership(memberships, controller)?;
        mounts
            .split(|byte| *byte == b'\n')
            .filter_map(Mount::parse)
            .filter(|mount| mount.has(controller, version))
            .filter_map(|mount| {
                let below = below(&mount.root, group)?;
                let mount_point = root.join(mount.point.strip_prefix("/").ok()?);
                let directory = mount_point.join(below);
                directory.is_dir().then_some(Group { version, mount_point, directory })
            })
            // Prefers the mount that shows the most levels.
            .max_by_key(|group| group.levels().count())
    }

    /// Returns the directory of the process's own group.
    pub(super) fn own(&self) -> &Path {
        &self.directory
    }

    /// Returns the directories of the process's own group and of the groups above it, in this order.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Path> {
        self.directory.ancestors().take_while(|level| level.starts_with(&self.mount_point))
    }
}

/// Returns the process's group in the hierarchy of the controller.
///
/// Each line of `/proc/self/cgroup` is `number:controllers:path`. The line of version 2 names no controllers: it has
/// all that the other lines do not name.
fn membership(text: &[u8], controller: Controller) -> Option<(Version, &Path)> {
    let mut unified = None;
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let path = Path::new(OsStr::from_bytes(path));
        if controllers.split(|byte| *byte == b',').any(|name| name == controller.name()) {
            return Some((Version::V1, path));
        }
        if number == b"0" && controllers.is_empty() {
            unified = Some((Version::V2, path));
        }
    }
    unified
}

/// Returns the path of a group below the root of a mount.
///
/// Returns `None` if the group is elsewhere, or above the root of the process's cgroup namespace, where names are
/// unknown.
fn below<'a>(mount_root: &Path, group: &'a Path) -> Option<&'a Path> {
    let leads_out = |path: &Path| path.components().any(|part| part == Component::ParentDir);
    group.strip_prefix(mount_root).ok().filter(|_| !leads_out(mount_root) && !leads_out(group))
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    file_system: &'a [u8],
    settings: &'a [u8],
}

impl<'a> Mount<'a> {
    /// Parses `id parent device root point settings optional... - type source settings`.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let separator = line.windows(3).position(|three| three == b" - ")?;
        let (front, back) = (line.get(..separator)?, line.get(separator + 3..)?);
        let mut front = front.split(|byte| *byte == b' ');
        let mut back = back.split(|byte| *byte == b' ');
        Some(Mount {
            root: unescaped(front.nth(3)?),
            point: unescaped(front.next()?),
            file_system: back.next()?,
            settings: back.nth(1)?,
        })
    }

    fn has(&self, controller: Controller, version: Version) -> bool {
        match version {
            Version::V2 => self.file_system == b"cgroup2",
            Version::V1 => {
                self.file_system == b"cgroup"
                    && self.settings.split(|byte| *byte == b',').any(|option| option == controller.name())
            }
        }
    }
}

/// Undoes the octal escapes that the kernel writes for white space and backslashes, such as `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = after;
        path.push(match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                rest = after;
                (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
            }
            _ => *first,
        });
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str, controller: Controller) -> Option<(Version, &str)> {
        membership(text.as_bytes(), controller).map(|(version, path)| (version, path.to_str().unwrap()))
    }

    #[test]
    fn each_controller_is_in_one_hierarchy() {
        let v2 = "0::/system.slice/shop.service\n";
        assert_eq!(group(v2, Controller::Memory), Some((Version::V2, "/system.slice/shop.service")));

        let v1 =
            "11:memory:/docker/4f\n10:cpuset:/\n4:cpu,cpuacct:/docker/4f:a,b\n1:name=systemd:/docker/4f\n";
        assert_eq!(group(v1, Controller::Memory), Some((Version::V1, "/docker/4f")));
        assert_eq!(group(v1, Controller::Cpu), Some((Version::V1, "/docker/4f:a,b")));

        let hybrid = "4:memory:/one\n1:name=systemd:/two\n0::/three\n";
        assert_eq!(group(hybrid, Controller::Memory), Some((Version::V1, "/one")));
        assert_eq!(group(hybrid, Controller::Cpu), Some((Version::V2, "/three")));
    }

    #[test]
    fn a_malformed_line_is_skipped() {
        for text in ["", "\n\n", "0:", "0", "::", "4:cpuset:/\n", "0:memory", "7::/\n", "memory:/\n"] {
            assert_eq!(group(text, Controller::Memory), None, "{text:?}");
        }
        assert_eq!(group("4:mem\n\u{0}\n0::/a", Controller::Memory), Some((Version::V2, "/a")));
    }

    #[test]
    fn a_mount_is_read_with_and_without_optional_fields() {
        let line = br"36 35 0:31 /docker/4f /sys/fs/cgroup/memory\040two ro master:1 shared:7 - cgroup cgroup rw,memory";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.root, Path::new("/docker/4f"));
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup/memory two"));
        assert!(mount.has(Controller::Memory, Version::V1));
        assert!(!mount.has(Controller::Memory, Version::V2));

        let mount = Mount::parse(b"9 8 0:7 / /c rw - cgroup cgroup rw,cpuacct,cpuset").unwrap();
        assert!(!mount.has(Controller::Cpu, Version::V1), "these are other controllers");
        let mount = Mount::parse(b"41 31 0:38 / /sys/fs/cgroup rw - cgroup2  rw,nsdelegate").unwrap();
        assert!(mount.has(Controller::Cpu, Version::V2), "the source may be empty");
    }

    #[test]
    fn a_truncated_mount_is_skipped() {
        let line = b"41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw";
        for length in 0..line.len() - 2 {
            assert!(Mount::parse(&line[..length]).is_none(), "cut after {length} bytes");
        }
        assert!(Mount::parse(b"41 31 / - cgroup2 cgroup2 rw").is_none());
    }

    #[test]
    fn octal_escapes_are_undone_and_similar_text_is_kept() {
        let cases = [
            (&br"/a\040b\011c\012d\134e"[..], &b"/a b\tc\nd\\e"[..]),
            (br"\377\400\8", b"\xff\\400\\8"),
            (br"\04", br"\04"),
            (br"\", br"\"),
            (b"", b""),
        ];
        for (escaped, path) in cases {
            assert_eq!(unescaped(escaped).as_os_str().as_bytes(), path);
        }
    }

    #[test]
    fn a_group_is_found_below_the_root_of_its_mount_only() {
        let below = |root: &str, group| below(Path::new(root), Path::new(group)).and_then(Path::to_str);
        assert_eq!(below("/", "/a/b"), Some("a/b"));
        assert_eq!(below("/", "/"), Some(""));
        assert_eq!(below("/docker/4f", "/docker/4f/inner"), Some("inner"));
        assert_eq!(below("/docker/4f", "/docker/4fe"), None);
        assert_eq!(below("/", "/../sibling"), None);
        assert_eq!(below("/../..", "/"), None);
        assert_eq!(below("/..", "/../a"), None);
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited, run};

    const MEMBERSHIPS: [&[u8]; 3] = [
        b"0::/system.slice/shop.service\n",
        b"11:memory:/docker/4f\n10:cpuset:/\n4:cpu,cpuacct:/docker/4f\n1:name=systemd:/docker/4f\n0::/\n",
        b"4:memory:/one\n1:name=systemd:/two\n0::/docker/4f\n",
    ];
    const MOUNTS: [&[u8]; 3] = [
        b"24 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
        b"36 35 0:31 /docker/4f /sys/fs/cgroup/memory\\040two ro master:1 - cgroup cgroup rw,memory\n",
        b"37 35 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n38 35 0:33 / /c rw - cgroup2  rw\n",
    ];

    #[test]
    fn any_lists_lead_to_a_group_below_its_mount_or_to_none() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in [
            "sys/fs/cgroup/system.slice/shop.service",
            "sys/fs/cgroup/cpu/docker/4f",
            "sys/fs/cgroup/memory two",
            "c",
        ] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        run(5_000, 1 << 21, |u| {
            let (memberships, mounts) = (edited(u, &MEMBERSHIPS)?, edited(u, &MOUNTS)?);
            let controller = *u.choose(&[Controller::Memory, Controller::Cpu])?;
            let group = Group::find(controller, &memberships, &mounts, root);
            if let Some(group) = &group {
                assert!(group.own().is_dir() && group.own().starts_with(&group.mount_point), "{group:?}");
                let below = group.own().strip_prefix(&group.mount_point).unwrap();
                assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{group:?}");
                assert_eq!(group.levels().count(), below.components().count() + 1);
            }
            Ok(group.is_some())
        });
    }
}
