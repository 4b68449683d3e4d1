//! The kernel's own words for ublk (`include/uapi/linux/ublk_cmd.h`), as libublk's bindings have them.
//!
//! The sizes are asserted: a kernel interface never changes them, a generator might.

pub(super) use libublk_rs_sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_READ_ONLY, UBLK_ATTR_VOLATILE_CACHE, UBLK_F_AUTO_BUF_REG,
    UBLK_F_CMD_IOCTL_ENCODE, UBLK_F_NO_AUTO_PART_SCAN, UBLK_F_SAFE_STOP_DEV,
    UBLK_F_SUPPORT_ZERO_COPY, UBLK_F_UPDATE_SIZE, UBLK_F_USER_COPY, UBLK_F_USER_RECOVERY,
    UBLK_F_USER_RECOVERY_REISSUE, UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DISCARD,
    UBLK_PARAM_TYPE_DMA_ALIGN, UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC,
    UBLK_U_CMD_END_USER_RECOVERY, UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_GET_FEATURES,
    UBLK_U_CMD_SET_PARAMS, UBLK_U_CMD_START_DEV, UBLK_U_CMD_START_USER_RECOVERY,
    UBLK_U_CMD_STOP_DEV, UBLK_U_CMD_TRY_STOP_DEV, UBLK_U_CMD_UPDATE_SIZE,
    UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_FETCH_REQ, ublk_params, ublksrv_ctrl_cmd,
    ublksrv_ctrl_dev_info, ublksrv_io_desc,
};

const _: () = assert!(size_of::<ublksrv_ctrl_cmd>() == 32);
const _: () = assert!(size_of::<ublksrv_ctrl_dev_info>() == 64);
const _: () = assert!(size_of::<ublksrv_io_desc>() == 24);

/// Where the pages of a request with tag 0 of queue 0 begin on the character device.
pub(super) const PAYLOAD: u64 = 0x8000_0000;
/// A tag's pages are so many bits apart.
pub(super) const TAG_SHIFT: u32 = 25;

/// Operations, the low eight bits of a descriptor's flags.
pub(super) const OP_READ: u32 = 0;
pub(super) const OP_WRITE: u32 = 1;
pub(super) const OP_FLUSH: u32 = 2;
pub(super) const OP_DISCARD: u32 = 3;
pub(super) const OP_WRITE_ZEROES: u32 = 5;
/// The write must survive the power before its answer.
pub(super) const FLAG_FUA: u32 = 1 << 13;
/// The request's pages could not be registered: copy them.
pub(super) const FLAG_NOT_REGISTERED: u32 = 1 << 17;
/// With automatic registration: a request whose pages cannot be registered comes all the same.
pub(super) const REGISTER_OR_COPY: u64 = 1;
