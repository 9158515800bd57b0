//! Watchpoints: the four of the processor (AMD64 Architecture Programmer's Manual, volume 2, section 13.1.1).

use gdbstub::target::ext::breakpoints::WatchKind;
use kvm_bindings::kvm_debugregs;
use kvm_ioctls::VcpuFd;

/// What DR6 is with nothing in it.
const DR6_CLEAR: u64 = 0xffff_0ff0;
/// DR7's bit that is always set.
const DR7_FIXED: u64 = 1 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watchpoint {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) kind: WatchKind,
}

/// The watchpoints of a guest, by the numbers of their registers.
#[derive(Debug, Default)]
pub(super) struct Watchpoints([Option<Watchpoint>; 4]);

impl Watchpoints {
    /// `None` if the processor cannot watch that, or no more.
    pub(super) fn add(&mut self, vcpu: &VcpuFd, new: Watchpoint) -> Option<()> {
        // It knows no watchpoint for reads alone.
        let possible = matches!(new.bytes, 1 | 2 | 4 | 8) && new.address.is_multiple_of(new.bytes) && new.kind != WatchKind::Read;
        let free = self.0.iter_mut().find(|place| place.is_none()).filter(|_| possible)?;
        *free = Some(new);
        self.load(vcpu)
    }

    /// `None` if there is none like it.
    pub(super) fn remove(&mut self, vcpu: &VcpuFd, old: Watchpoint) -> Option<()> {
        *self.0.iter_mut().find(|place| **place == Some(old))? = None;
        self.load(vcpu)
    }

    pub(super) fn remove_all(&mut self, vcpu: &VcpuFd) {
        if std::mem::take(&mut self.0) != [None; 4] {
            let _no_watchpoint_is_left = self.load(vcpu);
        }
    }

    /// The one at which the guest stopped, if it is one.
    pub(super) fn hit(&self, vcpu: &VcpuFd) -> Option<Watchpoint> {
        if self.0 == [None; 4] {
            return None;
        }
        let dr6 = vcpu.get_debug_regs().ok()?.dr6;
        // Nobody else clears it.
        self.load(vcpu)?;
        self.0.iter().enumerate().find_map(|(index, watchpoint)| watchpoint.filter(|_| dr6 >> index & 1 == 1))
    }

    fn load(&self, vcpu: &VcpuFd) -> Option<()> {
        vcpu.set_debug_regs(&self.registers()).ok()
    }

    fn registers(&self) -> kvm_debugregs {
        let addresses = self.0.map(|watchpoint| watchpoint.map_or(0, |watchpoint| watchpoint.address));
        let enabled = self.0.iter().enumerate().filter_map(|(index, watchpoint)| Some((index, (*watchpoint)?)));
        let dr7 =
            enabled.fold(DR7_FIXED, |dr7, (index, watchpoint)| dr7 | watchpoint.control() << (16 + 4 * index) | 1 << (2 * index));
        kvm_debugregs { db: addresses, dr6: DR6_CLEAR, dr7, ..kvm_debugregs::default() }
    }
}

impl Watchpoint {
    /// Its four bits in DR7: what is watched, and how much.
    fn control(self) -> u64 {
        let what = if self.kind == WatchKind::Write { 0b01 } else { 0b11 };
        let length = match self.bytes {
            1 => 0b00,
            2 => 0b01,
            8 => 0b10,
            _ => 0b11,
        };
        length << 2 | what
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_told_what_is_watched() {
        let watchpoint = |address, bytes, kind| Some(Watchpoint { address, bytes, kind });
        let all = Watchpoints([
            watchpoint(0x1000, 4, WatchKind::Write),
            None,
            watchpoint(0x2008, 8, WatchKind::ReadWrite),
            watchpoint(0x3001, 1, WatchKind::Write),
        ]);
        let registers = all.registers();
        assert_eq!(registers.db, [0x1000, 0, 0x2008, 0x3001]);
        // Volume 2, figure 13-3: local enables at bits 0, 4 and 6; R/W and LEN from bit 16 on, four bits for each.
        assert_eq!(registers.dr7, 1 << 10 | 1 << 6 | 1 << 4 | 1 | 0b0001 << 28 | 0b1011 << 24 | 0b1101 << 16);
        assert_eq!(Watchpoints::default().registers().dr7, 1 << 10);
    }
}
