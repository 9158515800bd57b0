//! Checked access to the linear memory.

use crate::wasi::Errno;

/// The bytes of the module's memory.
pub(crate) struct Linear<'a>(pub(crate) &'a mut [u8]);

impl Linear<'_> {
    pub(crate) fn slice(&mut self, pointer: u32, bytes: u32) -> Result<&mut [u8], Errno> {
        let start = pointer as usize;
        self.0.get_mut(start..start + bytes as usize).ok_or(Errno::FAULT)
    }

    pub(crate) fn read_u32(&mut self, pointer: u32) -> Result<u32, Errno> {
        let bytes = self.slice(pointer, 4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| Errno::FAULT)?))
    }

    pub(crate) fn write(&mut self, pointer: u32, value: &[u8]) -> Result<(), Errno> {
        let bytes = u32::try_from(value.len()).map_err(|_| Errno::FAULT)?;
        self.slice(pointer, bytes)?.copy_from_slice(value);
        Ok(())
    }

    pub(crate) fn write_u32(&mut self, pointer: u32, value: u32) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    pub(crate) fn write_u64(&mut self, pointer: u32, value: u64) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    /// What element `index` of the array of vectors at `vectors` names (witx: `iovec`, `ciovec`).
    pub(crate) fn vector(&mut self, vectors: u32, index: u32) -> Result<&mut [u8], Errno> {
        let at = index.checked_mul(8).and_then(|offset| vectors.checked_add(offset)).ok_or(Errno::FAULT)?;
        let pointer = self.read_u32(at)?;
        let bytes = self.read_u32(at.checked_add(4).ok_or(Errno::FAULT)?)?;
        self.slice(pointer, bytes)
    }
}
