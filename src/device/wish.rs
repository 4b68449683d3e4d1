//! Which transport somebody asked for; `attach` decides which one there is.

/// What the configuration says about the way of disks to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// The best that this kernel has.
    #[default]
    Auto,
    /// ublk or nothing: a kernel without it is an error, not a reason for something else.
    Ublk,
    /// A FUSE file and a loop device over it, even where there is ublk.
    Fuse,
}
