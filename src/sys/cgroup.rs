//! The memory limit of the container that this process runs in (Linux control groups).
//!
//! `/proc/self/cgroup` names the process's group in each hierarchy. `/proc/self/mountinfo` says
//! where a hierarchy is mounted, and which part of it is visible there. The limit of a group also
//! binds the groups below it, so the smallest limit from the process's group up to the mount point
//! counts. A limit above the mount point, which the container hides, is not found.
//!
//! | version | file | meaning |
//! |---|---|---|
//! | 2 | `memory.max` | past it the system kills the process |
//! | 2 | `memory.high` | past it the system slows the process down |
//! | 1 | `memory.limit_in_bytes` | the same as `memory.max` |
//!
//! Processors need no such code: `std::thread::available_parallelism` reads the quota of both
//! versions. It rounds down, to at least 1, where Go rounds up, to at least 2. For a collector
//! rounding down is right: a worker more than the quota pays for uses it up early, and then the
//! whole program stands still until the next period.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the memory limit in bytes; `None` if there is none, if it cannot be found, or if it is
/// more than the machine's memory.
///
/// Each call reads a few small files.
pub(crate) fn memory_limit() -> Option<u64> {
    // Neither a model checker nor Miri lets a test read files.
    if cfg!(all(target_os = "linux", not(any(loom, shuttle, miri)))) {
        memory_limit_in(Path::new("/"))
    } else {
        None
    }
}

/// Does what [`memory_limit`] does, for a file system whose root is `root`.
fn memory_limit_in(root: &Path) -> Option<u64> {
    let physical = physical_memory(&read(&root.join("proc/meminfo"))?)?;
    let groups = read(&root.join("proc/self/cgroup"))?;
    let mounts = read(&root.join("proc/self/mountinfo"))?;
    let limits = mounts
        .lines()
        .filter_map(Mount::parse)
        .filter_map(|mount| limit_below(root, &mount, &groups));
    // Version 1 writes "no limit" as a number near 2^63. A limit that equals the machine's memory
    // counts, because some containers see a machine that has no more than their limit.
    limits.min().filter(|&limit| limit <= physical)
}

/// Returns the smallest limit from the process's group in this hierarchy up to the mount point.
fn limit_below(root: &Path, mount: &Mount, groups: &str) -> Option<u64> {
    let group = group_in(groups, mount.version)?;
    // A group outside what is mounted here is not visible; `..` leads out of a cgroup namespace.
    let inside = Path::new(group).strip_prefix(&mount.shows).ok()?;
    if inside.components().any(|c| c == Component::ParentDir) {
        return None;
    }
    let top = root.join(mount.point.strip_prefix("/").ok()?);
    let own = top.join(inside);
    own.ancestors()
        .take_while(|dir| dir.starts_with(&top))
        .flat_map(|dir| mount.version.limit_files().iter().map(|f| dir.join(f)))
        .filter_map(|file| limit(&read(&file)?))
        .min()
}

/// The two kinds of hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// There is a hierarchy for each controller, or for a few controllers.
    One,
    /// One hierarchy serves all controllers.
    Two,
}

impl Version {
    fn limit_files(self) -> &'static [&'static str] {
        match self {
            Self::One => &["memory.limit_in_bytes"],
            Self::Two => &["memory.max", "memory.high"],
        }
    }
}

/// A mounted hierarchy with memory limits.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group that the mount point shows.
    shows: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Reads a line of `mountinfo`: `36 35 98:0 /shows /point options [tags..] - type source
    /// options`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if has_memory(kind.nth(1)?) => Version::One,
            _ => return None,
        };
        let mut fields = mount.split(' ').skip(3);
        Some(Self {
            version,
            shows: unescape(fields.next()?),
            point: unescape(fields.next()?),
        })
    }
}

/// Returns the process's group in the hierarchy of this version, from lines such as
/// `4:cpu,memory:/group` (version 1) and `0::/group` (version 2).
fn group_in(groups: &str, version: Version) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let found = match version {
            Version::One => has_memory(controllers),
            Version::Two => id == "0" && controllers.is_empty(),
        };
        found.then_some(group)
    })
}

/// Whether a comma list of controllers or options names the memory controller.
fn has_memory(list: &str) -> bool {
    list.split(',').any(|item| item == "memory")
}

/// Decodes a path of `mountinfo`, which writes a space, a tab, the end of a line and `\` as `\`
/// with three octal digits.
fn unescape(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|d| u8::from_str_radix(d, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    PathBuf::from(text)
}

/// Reads the content of a limit file: bytes, or `max`. A limit of 0 is ignored, because nothing
/// runs within 0 bytes.
fn limit(content: &str) -> Option<u64> {
    content.trim().parse().ok().filter(|&bytes| bytes > 0)
}

/// Returns the machine's memory in bytes, from `meminfo`.
fn physical_memory(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Returns a file's text, whatever its encoding; `None` if the file cannot be read.
fn read(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const V1: &str = "33 31 0:31 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";
    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
    const OTHERS: &str = "23 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                          32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";

    /// A file system of a few files, on a machine with 8 GiB of memory.
    struct Tree(PathBuf);

    impl Tree {
        fn new(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            // Relaxed: the counter only makes names unique.
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("greywave-cgroup-{}-{count}", std::process::id());
            let tree = Self(std::env::temp_dir().join(name));
            tree.write("proc/meminfo", "MemFree: 1 kB\nMemTotal:  8388608 kB\n");
            tree.write("proc/self/cgroup", cgroup);
            tree.write("proc/self/mountinfo", &format!("{OTHERS}{mountinfo}"));
            for (path, content) in files {
                tree.write(&format!("sys/fs/cgroup/{path}"), content);
            }
            tree
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("a file in a directory")).expect("created");
            fs::write(path, content).expect("written");
        }

        fn limit(&self) -> Option<u64> {
            memory_limit_in(&self.0)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_2_takes_the_smallest_on_the_way_up() {
        let group = "0::/a.slice/b.scope\n";
        let max = ("a.slice/b.scope/memory.max", "max\n");
        let tree = Tree::new(group, V2, &[max, ("a.slice/memory.max", "2000\n")]);
        assert_eq!(tree.limit(), Some(2000), "the parent's");
        tree.write("sys/fs/cgroup/a.slice/b.scope/memory.high", "1500\n");
        assert_eq!(tree.limit(), Some(1500), "high is below max");
        tree.write("sys/fs/cgroup/a.slice/b.scope/memory.max", "1000\n");
        assert_eq!(tree.limit(), Some(1000), "its own");
        tree.write("sys/fs/cgroup/c.slice/memory.max", "10\n");
        tree.write("sys/fs/memory.max", "10\n");
        assert_eq!(tree.limit(), Some(1000), "neither a sibling's nor outside");
    }

    #[test]
    fn version_1_is_found_among_other_hierarchies() {
        let group = "9:name=systemd:/\n4:cpu,memory:/docker/1\n0::/\n";
        let files = [
            ("memory/docker/1/memory.limit_in_bytes", "5000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(Tree::new(group, V1, &files).limit(), Some(5000));
        assert_eq!(Tree::new(group, V1, &files[1..]).limit(), None, "unlimited");
    }

    #[test]
    fn a_mount_may_show_a_part_of_the_hierarchy() {
        let mount = "33 31 0:31 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let files = [
            ("memory/memory.limit_in_bytes", "7000"),
            ("memory/job/memory.limit_in_bytes", "6000"),
        ];
        let limit = |group: &str| Tree::new(&format!("4:memory:{group}\n"), mount, &files).limit();
        assert_eq!(limit("/docker/1"), Some(7000));
        assert_eq!(limit("/docker/1/job"), Some(6000));
        assert_eq!(limit("/docker/1/gone"), Some(7000));
        assert_eq!(limit("/docker/10"), None, "not a part of what is mounted");
        assert_eq!(limit("/docker/1/../2"), None);
    }

    #[test]
    fn a_group_may_have_odd_characters() {
        let mount = r"29 23 0:26 / /sys/fs/cgroup/a\040b rw - cgroup2 cgroup2 rw";
        let files = [("a b/c:d e/memory.max", "3000")];
        assert_eq!(Tree::new("0::/c:d e\n", mount, &files).limit(), Some(3000));
    }

    #[test]
    fn nonsense_is_no_limit() {
        for content in [
            "",
            "0",
            "-1",
            "many",
            "99999999999999999999999",
            "8589934593",
        ] {
            let tree = Tree::new("0::/\n", V2, &[("memory.max", content)]);
            assert_eq!(tree.limit(), None, "{content:?}");
        }
        let all = Tree::new("0::/\n", V2, &[("memory.max", "8589934592")]);
        assert_eq!(all.limit(), Some(8 << 30), "all there is");
        for (group, mounts) in [
            ("", V2),
            ("0::/\n", ""),
            ("0::\n0:\n:::\n", " - \n - cgroup\n"),
        ] {
            let tree = Tree::new(group, mounts, &[("memory.max", "1000")]);
            assert_eq!(tree.limit(), None, "{group:?} {mounts:?}");
        }
        assert_eq!(memory_limit_in(Path::new("/no/such/directory")), None);
    }

    #[test]
    fn escapes_are_read_and_what_is_none_is_kept() {
        let read = |path| unescape(path).to_string_lossy().into_owned();
        assert_eq!(read(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(read(r"/a\04"), r"/a\04");
        assert_eq!(read(r"/a\999\"), r"/a\999\");
        assert_eq!(read(r"/a\é1"), r"/a\é1");
    }

    #[test]
    fn this_machine_has_a_limit_within_its_memory_or_none() {
        assert!(memory_limit().is_none_or(|limit| limit > 1 << 20));
    }
}
