//! The header: what a file holds, and the checks that make it safe to believe.
//!
//! Python's whisper believes offsets, steps and lengths as it finds them. Here a header is refused
//! unless its archives lie back to back, have points, and have steps of which each is a larger
//! multiple of the one before: with that, no slot address can leave the file and no division can
//! fail, and the code behind needs no checks of its own. Files written by Python's whisper or by
//! go-carbon pass.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::aggregation::Aggregation;
use crate::archive::{Archive, SLOT_SIZE};
use crate::error::{ArchiveRule, Damage, Error, Result};
use crate::retention::Retention;
use crate::units::Step;

/// The bytes before the archive infos.
pub const METADATA_SIZE: usize = 16;
/// The bytes of one archive info.
pub const ARCHIVE_INFO_SIZE: usize = 12;
/// More archives than anybody has: each step at least doubles, so 32 bits allow no more.
pub const MAX_ARCHIVES: usize = 32;
/// The longest header there can be.
pub const MAX_HEADER_SIZE: usize = METADATA_SIZE + MAX_ARCHIVES * ARCHIVE_INFO_SIZE;

/// What the first bytes of a file say about the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// How points are made coarser.
    pub aggregation: Aggregation,
    /// The share of known points that it takes to make a coarser one, 0 to 1.
    pub x_files_factor: f32,
    archives: Box<[Archive]>,
}

impl Header {
    /// The header of a new file.
    ///
    /// # Errors
    /// [`Error::Archives`] names the rule that the retentions break, [`Error::XFilesFactor`] a
    /// factor outside of 0 to 1.
    pub fn new(
        retentions: &[Retention],
        x_files_factor: f64,
        aggregation: Aggregation,
    ) -> Result<Self> {
        let retentions = validated(retentions)?;
        let x_files_factor = checked_factor(x_files_factor)?;
        let mut offset = (METADATA_SIZE + retentions.len() * ARCHIVE_INFO_SIZE) as u64;
        let mut archives = Vec::with_capacity(retentions.len());
        for Retention { step, points } in retentions {
            let start = u32::try_from(offset).map_err(|_| ArchiveRule::TooLarge)?;
            archives.push(Archive {
                offset: start,
                step,
                points,
            });
            offset += u64::from(points) * SLOT_SIZE as u64;
        }
        if offset > u64::from(u32::MAX) {
            return Err(ArchiveRule::TooLarge.into());
        }
        Ok(Self {
            aggregation,
            x_files_factor,
            archives: archives.into(),
        })
    }

    /// Reads a header from the first bytes of a file; bytes behind it are ignored.
    ///
    /// # Errors
    /// [`Damage`] says what makes them no header.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, Damage> {
        let short = |needed: usize| Damage::Short {
            needed: needed as u64,
            len: bytes.len() as u64,
        };
        let word = |at: usize| {
            let word = bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
        };
        let metadata = || Some([word(0)?, word(4)?, word(8)?, word(12)?]);
        let [code, max_retention, factor, count] =
            metadata().ok_or_else(|| short(METADATA_SIZE))?;

        let aggregation = Aggregation::from_code(code).ok_or(Damage::Method(code))?;
        let x_files_factor = f32::from_bits(factor);
        if !(0.0..=1.0).contains(&x_files_factor) {
            return Err(Damage::XFilesFactor(x_files_factor));
        }
        if count == 0 || count as usize > MAX_ARCHIVES {
            return Err(Damage::ArchiveCount(count));
        }
        let size = METADATA_SIZE + count as usize * ARCHIVE_INFO_SIZE;
        let mut expected = size as u64;
        let mut longest = 0;
        let mut archives: Vec<Archive> = Vec::with_capacity(count as usize);
        for index in 0..count as usize {
            let at = METADATA_SIZE + index * ARCHIVE_INFO_SIZE;
            let info = || Some([word(at)?, word(at + 4)?, word(at + 8)?]);
            let [offset, step, points] = info().ok_or_else(|| short(size))?;
            if u64::from(offset) != expected {
                return Err(Damage::Offset {
                    index,
                    offset,
                    expected,
                });
            }
            let step = Step::new(step).ok_or(Damage::ZeroStep(index))?;
            if points == 0 {
                return Err(Damage::ZeroPoints(index));
            }
            if let Some(finer) = archives.last().map(|finer| finer.step.seconds())
                && (step.seconds() <= finer || step.seconds() % finer != 0)
            {
                return Err(Damage::Steps {
                    index,
                    step: step.seconds(),
                    finer,
                });
            }
            let archive = Archive {
                offset,
                step,
                points,
            };
            expected = archive.end();
            longest = longest.max(archive.retention());
            archives.push(archive);
        }
        if expected > u64::from(u32::MAX) {
            return Err(Damage::TooLarge(expected));
        }
        if u64::from(max_retention) != longest {
            return Err(Damage::MaxRetention {
                found: max_retention,
                expected: longest,
            });
        }
        Ok(Self {
            aggregation,
            x_files_factor,
            archives: archives.into(),
        })
    }

    /// Reads the header of a file and nothing else: whether its archives are all there is not
    /// looked at (`whisper.info`).
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`].
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            // A pipe that has the name must not be waited for.
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
            .open(path)
            .map_err(|e| Error::io(path, "opening it", e))?;
        Self::read_from(&file, path)
    }

    pub(crate) fn read_from(mut file: &std::fs::File, path: &Path) -> Result<Self> {
        use std::io::Read;
        let mut bytes = Vec::with_capacity(MAX_HEADER_SIZE);
        file.by_ref()
            .take(MAX_HEADER_SIZE as u64)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io(path, "reading its header", e))?;
        Self::parse(&bytes).map_err(|damage| Error::damaged(path, damage))
    }

    /// The header as a file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        let mut put = |word: u32| bytes.extend_from_slice(&word.to_be_bytes());
        put(self.aggregation.code());
        put(self.max_retention());
        put(self.x_files_factor.to_bits());
        put(self.archives.len() as u32);
        for archive in &self.archives {
            put(archive.offset);
            put(archive.step.seconds());
            put(archive.points);
        }
        bytes
    }

    /// The archives, finest first. There is at least one.
    pub fn archives(&self) -> &[Archive] {
        &self.archives
    }

    /// The retentions of the archives, finest first.
    pub fn retentions(&self) -> Vec<Retention> {
        self.archives.iter().map(Retention::from).collect()
    }

    /// The seconds that the longest archive reaches back.
    pub fn max_retention(&self) -> u32 {
        // `parse` compared it with a 32-bit word, `new` refused what does not fit one.
        self.archives
            .iter()
            .map(Archive::retention)
            .max()
            .unwrap_or(0) as u32
    }

    /// The bytes of the header itself.
    pub fn size(&self) -> usize {
        METADATA_SIZE + self.archives.len() * ARCHIVE_INFO_SIZE
    }

    /// The bytes of a whole file with this header.
    pub fn file_size(&self) -> u64 {
        self.archives.last().map_or(0, Archive::end)
    }
}

/// A factor as a header can hold it.
///
/// # Errors
/// [`Error::XFilesFactor`] outside of 0 to 1, NaN included.
pub fn checked_factor(factor: f64) -> Result<f32> {
    if (0.0..=1.0).contains(&factor) {
        Ok(factor as f32)
    } else {
        Err(Error::XFilesFactor(factor))
    }
}

/// The retentions in order, if a file may be made of them. The rules and the order in which they
/// are looked at are those of Python's `validateArchiveList`; then both numbers must be positive
/// and the retention fit its 32 bits.
fn validated(retentions: &[Retention]) -> std::result::Result<Vec<Retention>, ArchiveRule> {
    if retentions.is_empty() {
        return Err(ArchiveRule::None);
    }
    let mut sorted = retentions.to_vec();
    sorted.sort_by_key(|retention| retention.step);
    for (index, pair) in sorted.windows(2).enumerate() {
        let (this, next) = (pair[0], pair[1]);
        let (step, next_step) = (this.step.seconds(), next.step.seconds());
        if step == next_step {
            let (this, next) = ((step, this.points), (next_step, next.points));
            return Err(ArchiveRule::SamePrecision { index, this, next });
        }
        if next_step % step != 0 {
            return Err(ArchiveRule::Indivisible {
                index,
                this: step,
                next: next_step,
            });
        }
        if next.seconds() <= this.seconds() {
            let (this, next) = (this.seconds(), next.seconds());
            return Err(ArchiveRule::Shorter { index, this, next });
        }
        let needed = next_step / step;
        if this.points < needed {
            return Err(ArchiveRule::TooFewPoints {
                index,
                needed,
                points: this.points,
            });
        }
    }
    if let Some(index) = sorted.iter().position(|retention| retention.points == 0) {
        return Err(ArchiveRule::NotPositive(index));
    }
    if sorted
        .iter()
        .any(|retention| retention.seconds() > u64::from(u32::MAX))
    {
        return Err(ArchiveRule::TooLarge);
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retentions(list: &[(u32, u32)]) -> Vec<Retention> {
        list.iter()
            .map(|&(step, points)| Retention::new(step, points).unwrap())
            .collect()
    }

    fn header() -> Header {
        Header::new(&retentions(&[(10, 6), (60, 10)]), 0.5, Aggregation::Average).unwrap()
    }

    fn poked(at: usize, word: u32) -> Damage {
        let mut bytes = header().to_bytes();
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        Header::parse(&bytes).unwrap_err()
    }

    #[test]
    fn a_header_reads_back() {
        let header = header();
        assert_eq!(Header::parse(&header.to_bytes()).unwrap(), header);
        assert_eq!((header.size(), header.file_size()), (40, 40 + 12 * 16));
        assert_eq!(header.max_retention(), 600);
    }

    #[test]
    fn each_damage_is_named() {
        assert_eq!(
            Header::parse(&[]),
            Err(Damage::Short { needed: 16, len: 0 })
        );
        let bytes = header().to_bytes();
        assert_eq!(
            Header::parse(&bytes[..39]),
            Err(Damage::Short {
                needed: 40,
                len: 39
            })
        );
        assert_eq!(poked(0, 9), Damage::Method(9));
        assert_eq!(
            poked(4, 601),
            Damage::MaxRetention {
                found: 601,
                expected: 600
            }
        );
        assert!(matches!(
            poked(8, f32::NAN.to_bits()),
            Damage::XFilesFactor(_)
        ));
        assert_eq!(poked(12, 0), Damage::ArchiveCount(0));
        assert_eq!(poked(12, u32::MAX), Damage::ArchiveCount(u32::MAX));
        assert_eq!(
            poked(16, 41),
            Damage::Offset {
                index: 0,
                offset: 41,
                expected: 40
            }
        );
        assert_eq!(poked(20, 0), Damage::ZeroStep(0));
        assert_eq!(poked(24, 0), Damage::ZeroPoints(0));
        assert_eq!(
            poked(32, 10),
            Damage::Steps {
                index: 1,
                step: 10,
                finer: 10
            }
        );
        assert_eq!(
            poked(32, 65),
            Damage::Steps {
                index: 1,
                step: 65,
                finer: 10
            }
        );
        assert!(matches!(poked(36, u32::MAX), Damage::TooLarge(_)));
    }

    #[test]
    fn rules_speak_as_pythons_do() {
        let refused = |list: &[(u32, u32)]| {
            Header::new(&retentions(list), 0.5, Aggregation::Sum)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(&[]),
            "You must specify at least one archive configuration!"
        );
        assert_eq!(
            refused(&[(60, 1440), (90, 1440)]),
            "Higher precision archives' precision must evenly divide all lower precision \
             archives' precision (archive0: 60, archive1: 90)"
        );
        assert_eq!(
            refused(&[(60, 5), (60, 6)]),
            "A Whisper database may not be configured having two archives with the same \
             precision (archive0: (60, 5), archive1: (60, 6))"
        );
        assert_eq!(
            refused(&[(5, 100), (25, 2)]),
            "Lower precision archives must cover larger time intervals than higher precision \
             archives (archive0: 500 seconds, archive1: 50 seconds)"
        );
        assert_eq!(
            refused(&[(10, 5), (60, 10)]),
            "Each archive must have at least enough points to consolidate to the next archive \
             (archive1 consolidates 6 of archive0's points but it has only 5 total points)"
        );
        assert_eq!(refused(&[(10, 0)]), "archive0 must have at least one point");
        assert_eq!(
            refused(&[(1 << 20, 1 << 20)]),
            "the archives are too large for the file format"
        );
        assert_eq!(
            refused(&[(1, u32::MAX)]),
            "the archives are too large for the file format"
        );
    }
}
