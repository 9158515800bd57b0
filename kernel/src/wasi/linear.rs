//! Access to the linear memory. Pointers and lengths come from the module: each is checked, none can panic.

use mote_abi::errno::Errno;

/// The bytes of the module's memory.
pub(super) struct Linear<'a>(&'a mut [u8]);

/// A piece of memory that the module names for input or output (witx: `iovec`, `ciovec`).
#[derive(Clone, Copy)]
pub(super) struct IoVec {
    pub(super) pointer: u32,
    pub(super) bytes: u32,
}

/// Bytes of an `iovec` in memory.
const IOVEC_BYTES: u32 = 8;

impl<'a> Linear<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes)
    }

    /// `bytes` bytes from `pointer`.
    pub(super) fn slice(&self, pointer: u32, bytes: u32) -> Result<&[u8], Errno> {
        let start = pointer as usize;
        self.0.get(start..start + bytes as usize).ok_or(Errno::Fault)
    }

    /// `bytes` bytes from `pointer`, to be written.
    pub(super) fn slice_mut(&mut self, pointer: u32, bytes: u32) -> Result<&mut [u8], Errno> {
        let start = pointer as usize;
        self.0.get_mut(start..start + bytes as usize).ok_or(Errno::Fault)
    }

    pub(super) fn read<const BYTES: usize>(&self, pointer: u32) -> Result<[u8; BYTES], Errno> {
        self.slice(pointer, BYTES as u32)?.try_into().map_err(|_| Errno::Fault)
    }

    pub(super) fn write(&mut self, pointer: u32, value: &[u8]) -> Result<(), Errno> {
        let bytes = u32::try_from(value.len()).map_err(|_| Errno::Fault)?;
        self.slice_mut(pointer, bytes)?.copy_from_slice(value);
        Ok(())
    }

    pub(super) fn write_u32(&mut self, pointer: u32, value: u32) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    pub(super) fn write_u64(&mut self, pointer: u32, value: u64) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    /// Whether `bytes` bytes can be written at `pointer`: to be asked before an action that cannot be undone.
    pub(super) fn check(&self, pointer: u32, bytes: u32) -> Result<(), Errno> {
        self.slice(pointer, bytes).map(drop)
    }

    /// Element `index` of the array of vectors at `vectors`.
    pub(super) fn iovec(&self, vectors: u32, index: u32) -> Result<IoVec, Errno> {
        let at = index.checked_mul(IOVEC_BYTES).and_then(|offset| vectors.checked_add(offset)).ok_or(Errno::Fault)?;
        let [a, b, c, d, e, f, g, h] = self.read(at)?;
        Ok(IoVec { pointer: u32::from_le_bytes([a, b, c, d]), bytes: u32::from_le_bytes([e, f, g, h]) })
    }

    /// What the vectors name, which [`Linear::iovecs_bytes`] has checked.
    pub(super) fn parts(&self, vectors: u32, count: u32) -> impl Iterator<Item = &[u8]> {
        (0..count).filter_map(move |index| {
            let vector = self.iovec(vectors, index).ok()?;
            self.slice(vector.pointer, vector.bytes).ok()
        })
    }

    /// Checks all `count` vectors at `vectors` and returns how many bytes they name together.
    pub(super) fn iovecs_bytes(&self, vectors: u32, count: u32) -> Result<u32, Errno> {
        if count == 0 {
            return Ok(0);
        }
        self.check(vectors, count.checked_mul(IOVEC_BYTES).ok_or(Errno::Fault)?)?;
        (0..count).try_fold(0u32, |total, index| {
            let vector = self.iovec(vectors, index)?;
            self.check(vector.pointer, vector.bytes)?;
            total.checked_add(vector.bytes).ok_or(Errno::Inval)
        })
    }
}
