use std::collections::BTreeSet;

use super::*;
use crate::compute::Compute;
use crate::isa::Path;
use crate::varint;
use proptest::prelude::*;

/// Rows of float bits, some of them equal, with samples that are all zero; few distinct values, one, or any.
fn rows() -> impl Strategy<Value = (usize, Vec<Vec<u32>>)> {
    let value = prop_oneof![
        Just(prop_oneof![Just(0u32), Just(32f32.to_bits())].boxed()),
        Just((0u32..9).prop_map(|value| (value as f32).to_bits()).boxed()),
        Just((0u32..400).prop_map(|value| (value as f32).to_bits()).boxed()),
        Just(any::<u32>().boxed()),
        Just(prop_oneof![Just(0u32), Just(1u32 << 31), any::<u32>()].boxed()),
    ];
    (0usize..40, 0usize..100, value).prop_flat_map(|(rows, samples, value)| {
        let mask = prop::collection::vec(any::<bool>(), samples);
        let row = prop::collection::vec(value, samples);
        let pick = prop::collection::vec(any::<prop::sample::Index>(), rows);
        (prop::collection::vec(row, 1..20), pick, mask).prop_map(move |(kinds, pick, mask)| {
            let mut kinds = kinds;
            for kind in &mut kinds {
                kind.iter_mut().zip(&mask).for_each(|(bits, keep)| *bits *= u32::from(*keep));
            }
            (samples, pick.iter().map(|index| index.get(&kinds).clone()).collect())
        })
    })
}

/// Rows as plain lists of bits.
struct Lists<'a>(&'a [Vec<u32>]);

impl Rows for Lists<'_> {
    fn visit(&self, row: usize, scratch: &mut Vec<f32>, visit: impl FnMut(&[f32]) -> bool) {
        scratch.clear();
        scratch.extend(self.0[row].iter().map(|bits| f32::from_bits(*bits)));
        // In parts of odd lengths, as narrow panels have them.
        let _ = scratch.chunks(37).all(visit);
    }
}

fn compute() -> Compute {
    Compute::new(1).unwrap()
}

fn encoded(samples: usize, rows: &[Vec<u32>], known: Option<&[(u32, &[u32])]>) -> Vec<u8> {
    let all: Vec<u32> = (0..samples as u32).collect();
    let framed = known.map(|known| Framed { known, fast: false });
    encode(rows.len(), samples, &all, &Lists(rows), framed, &compute()).block()
}

/// Returns the rows as a block in a frame, all samples of which are live, with their nonzeros as floats.
fn with_floats(rows: &[Vec<u32>]) -> Vec<u8> {
    let mut body = vec![LIVE_ALL | VALUES_FLOATS];
    for row in rows {
        body.extend(row.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bits| byte << 1 | u8::from(*bits != 0))));
    }
    body.extend(rows.iter().flatten().filter(|bits| **bits != 0).flat_map(|bits| bits.to_le_bytes()));
    let mut block = Vec::new();
    varint::put(&mut block, 2 * body.len() as u32);
    block.extend_from_slice(&body);
    block
}

fn expanded(block: &Block<'_>) -> Vec<Vec<u32>> {
    let (rows, samples) = block.shape();
    let reader = block.reader(compute().path());
    let mut values = vec![0.0; block.live().len()];
    let expand = |row| {
        let bitmap = reader.bitmap(row);
        let next = reader.expand(bitmap, 0, reader.seek(row, bitmap, 0), &mut values);
        assert_eq!(next - reader.seek(row, bitmap, 0), block.nonzeros(row));
        let mut bits = vec![0; samples];
        block.live().iter().zip(&values).for_each(|(&sample, value)| bits[sample as usize] = value.to_bits());
        bits
    };
    (0..rows).map(expand).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn blocks_come_back_bit_for_bit((samples, rows) in rows()) {
        let block = encoded(samples, &rows, Some(&[]));
        prop_assert!(block.len() as u64 <= most_bytes(rows.len(), samples));
        prop_assert_eq!(&expanded(&Block::decode(&block, rows.len(), samples, &|_| None, &compute()).unwrap()), &rows);
        let alone = encoded(samples, &rows, None);
        prop_assert!(alone.len() as u64 <= most_bytes(rows.len(), samples));
        let decoded = Block::decode_any(&alone, &compute()).unwrap();
        prop_assert_eq!(&expanded(&decoded), &rows);
        for (index, row) in rows.iter().enumerate() {
            prop_assert_eq!(decoded.nonzeros(index), row.iter().filter(|bits| **bits != 0).count());
        }
        let floats = with_floats(&rows);
        prop_assert_eq!(&expanded(&Block::decode(&floats, rows.len(), samples, &|_| None, &compute()).unwrap()), &rows);
        // A framed block does not say its shape, which the exchange plan does: with another one it is a block or an error.
        for (rows, samples) in [(rows.len() + 1, samples), (rows.len(), samples + 1)] {
            if let Ok(block) = Block::decode(&block, rows, samples, &|_| None, &compute()) {
                expanded(&block);
            }
        }
    }

    #[test]
    fn live_samples_come_back_as_changes_of_a_list_that_the_reader_has(
        before in prop::collection::btree_set(0u32..300, 0..200),
        other in prop::collection::btree_set(0u32..300, 0..200),
        gone in prop::collection::btree_set(0u32..300, 0..20),
        new in prop::collection::btree_set(0u32..300, 0..20),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let live: Vec<u32> = before.difference(&gone).copied().collect::<BTreeSet<_>>().union(&new).copied().collect();
        let [before, other] = [before, other].map(|ids| ids.into_iter().collect::<Vec<u32>>());
        let rows = vec![live.iter().map(|id| (*id as f32 + 0.5).to_bits()).collect(); 2];
        let known = [(7, &other[..]), (300, &before[..])];
        let packed = encode(2, 300, &live, &Lists(&rows), Some(Framed { known: &known, fast: false }), &compute());
        prop_assert_eq!(&packed.live, &live);
        let block = packed.block();
        let find = |number| known.iter().find(|(other, _)| *other == number).map(|(_, ids)| *ids);
        let compute = compute();
        let decoded = Block::decode(&block, 2, 300, &find, &compute).unwrap();
        prop_assert_eq!(decoded.live(), &live[..]);
        prop_assert_eq!(expanded(&decoded)[1].iter().filter(|bits| **bits != 0).count(), live.len());
        let alone = encode(2, 300, &live, &Lists(&rows), None, &compute).block();
        // The shortest list is chosen, before compression, which may shorten the other one more.
        let mut lists = [Vec::new(), Vec::new()];
        live::put(&mut lists[0], 300, &live, &known);
        live::put(&mut lists[1], 300, &live, &[]);
        prop_assert!(lists[0].len() <= lists[1].len());
        prop_assert!(block.len() <= alone.len() + 40, "{} {}", block.len(), alone.len());
        let mut damaged = block;
        for (at, byte) in damage {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        if let Ok(block) = Block::decode(&damaged, 2, 300, &find, &compute) {
            expanded(&block);
        }
    }

    #[test]
    fn samples_that_the_caller_leaves_out_are_zero(
        live in prop::collection::btree_set(0u32..200, 0..60), rows in 0usize..5,
    ) {
        let live: Vec<u32> = live.into_iter().collect();
        let value = |row: usize, sample: u32| if sample.is_multiple_of(3) { 0.0 } else { (row * 7) as f32 + sample as f32 };
        let lists: Vec<Vec<u32>> =
            (0..rows).map(|row| live.iter().map(|sample| value(row, *sample).to_bits()).collect()).collect();
        let block = encode(rows, 200, &live, &Lists(&lists), Some(Framed::default()), &compute()).block();
        let found = expanded(&Block::decode(&block, rows, 200, &|_| None, &compute()).unwrap());
        for (row, found) in found.iter().enumerate() {
            for (sample, bits) in (0u32..).zip(found) {
                let expected = if live.contains(&sample) { value(row, sample) } else { 0.0 };
                prop_assert_eq!(*bits, expected.to_bits());
            }
        }
    }

    #[test]
    fn damaged_blocks_never_panic(
        (samples, rows) in rows(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        store in any::<bool>(),
        is_framed in any::<bool>(),
        has_floats in any::<bool>(),
    ) {
        let mut block = if is_framed && has_floats {
            with_floats(&rows)
        } else {
            encoded(samples, &rows, is_framed.then_some(&[]))
        };
        if store && !is_framed {
            // Stored uncompressed, so that the changes reach the body.
            let body = Block::decode_any(&block, &compute()).unwrap().body();
            block.clear();
            varint::put(&mut block, rows.len() as u32);
            varint::put(&mut block, samples as u32);
            varint::put(&mut block, 2 * body.len() as u32);
            block.extend_from_slice(&body);
        }
        for (at, byte) in changes {
            let at = at.index(block.len());
            block[at] = byte;
        }
        for bytes in [&block[..], &block[..cut.index(block.len())]] {
            let compute = compute();
            let decoded = [Block::decode(bytes, rows.len(), samples, &|_| None, &compute), Block::decode_any(bytes, &compute)];
            for block in decoded.into_iter().flatten() {
                if block.shape().1 <= 1000 {
                    expanded(&block);
                }
            }
        }
    }

    #[test]
    fn strange_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Block::decode_any(&bytes, &compute());
    }
}

#[test]
fn large_claims_take_no_memory() {
    let head = |rows, samples| {
        let mut block = Vec::new();
        varint::put(&mut block, rows);
        varint::put(&mut block, samples);
        block
    };
    for flags in [LIVE_ALL, LIVE_BITMAP, LIVE_GAPS, LIVE_ALL | REPEATS, VALUES_PLANES, VALUES_TABLE] {
        let mut block = head(1 << 24, u32::MAX);
        block.extend_from_slice(&[2 * 6, flags, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(Block::decode_any(&block, &compute()).is_err());
    }
    assert!(Block::decode_any(&head(u32::MAX, 1), &compute()).is_err());
    let mut block = head(1 << 20, 1 << 20);
    varint::put(&mut block, 1 << 31 | 1);
    block.extend_from_slice(&[4, 1, 2, 3, 4]);
    assert!(Block::decode_any(&block, &compute()).is_err());
}

#[test]
fn sparse_matrices_come_back() {
    let (indptr, indices, data) = (vec![0, 2, 2, 5], vec![1, 6, 0, 1, 2], vec![1.5, -2.0, f32::MAX, -0.0, 1e-45]);
    let block = encode_csr(&indptr, &indices, &data, 9, None, &compute()).unwrap();
    let (found_indptr, found_indices, found) =
        Block::decode_any(&block, &compute()).unwrap().csr(compute().path()).unwrap();
    assert_eq!((found_indptr, found_indices), (indptr.clone(), indices.clone()));
    assert!(found.iter().map(|value| value.to_bits()).eq(data.iter().map(|value| value.to_bits())));
    for wrong in [[6, 1, 0, 1, 2], [1, 1, 0, 1, 2], [1, 9, 0, 1, 2], [-1, 6, 0, 1, 2]] {
        assert!(encode_csr(&indptr, &wrong, &data, 9, None, &compute()).is_err());
    }
    assert!(encode_csr(&indptr, &indices, &data[1..], 9, None, &compute()).is_err());
    assert!(encode_csr(&[0, 6], &indices, &data, 9, None, &compute()).is_err());
}

#[test]
fn framed_rows_of_one_value_take_no_more_bytes_if_there_are_more() {
    for (rows, samples) in [(1, 1), (7, 33), (50, 1000)] {
        let lists = vec![vec![32f32.to_bits(); samples]; rows];
        let block = encoded(samples, &lists, Some(&[]));
        assert!(block.len() <= 7);
        assert_eq!(expanded(&Block::decode(&block, rows, samples, &|_| None, &compute()).unwrap()), lists);
        assert!(Block::decode_any(&block, &compute()).is_err());
    }
}

#[test]
fn large_blocks_are_the_same_for_every_path_and_thread_count() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    // Random mantissas and a few exponents: some parts are stored, others compressed, of more than one task each.
    let mut any = |_| if random() % 2 == 0 { 0 } else { 0x3f80_0000 + (random() & 0x01ff_ffff) };
    let mut rows: Vec<Vec<u32>> = (0..400).map(|_| (0..2999).map(&mut any).collect()).collect();
    rows[399] = rows[3].clone();
    let all: Vec<u32> = (0..2999).collect();
    let expected = encoded(2999, &rows, Some(&[]));
    assert!(expected.len() < 400 * 3000 * 4 / 2);
    for path in Path::available() {
        for threads in [1, 3] {
            let compute = Compute::with_path(path, threads).unwrap();
            assert!(encode(400, 2999, &all, &Lists(&rows), Some(Framed::default()), &compute).block() == expected);
            let block = Block::decode(&expected, 400, 2999, &|_| None, &compute).unwrap();
            assert!(expanded(&block) == rows);
            let reader = block.reader(path);
            let mut part = vec![0.0; 700];
            let bitmap = reader.bitmap(5);
            reader.expand(bitmap, 1234, reader.seek(5, bitmap, 1234), &mut part);
            assert!(part.iter().zip(&rows[5][1234..]).all(|(value, bits)| value.to_bits() == *bits));
        }
    }
}

#[test]
fn where_bytes_are_cheap_only_values_that_hardly_compress_are_left_as_they_are() {
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let fast = Some(Framed { known: &[], fast: true });
    let any = |bits: u32| if bits.is_multiple_of(2) { 0 } else { 0x3e00_0000 + (bits >> 4 & 0x03ff_ffff) };
    let coarse = |bits: u32| if bits.is_multiple_of(2) { 0 } else { 0x3f80_0000 + (bits & 0x007f_ff00) };
    let few = |bits: u32| ((bits % 100) as f32).to_bits();
    for (kind, are_floats) in [(any as fn(u32) -> u32, true), (coarse, false), (few, false)] {
        let rows: Vec<Vec<u32>> = (0..100).map(|_| (0..3001).map(|_| kind(random())).collect()).collect();
        let all: Vec<u32> = (0..3001).collect();
        let of = |compute: &Compute, framed| encode(rows.len(), 3001, &all, &Lists(&rows), framed, compute).block();
        let (slow, block) = (of(&compute(), Some(Framed::default())), of(&compute(), fast));
        assert_eq!(block == slow, !are_floats);
        let nonzeros = rows.iter().flatten().filter(|bits| **bits != 0).count();
        assert_eq!(block.len() > 4 * nonzeros, are_floats);
        assert!(block.len() <= 4 * nonzeros + 100 * 3001_usize.div_ceil(8) + 100);
        for path in Path::available() {
            let compute = Compute::with_path(path, 3).unwrap();
            assert!(of(&compute, fast) == block);
            let decoded = Block::decode(&block, 100, 3001, &|_| None, &compute).unwrap();
            let (reader, mut part) = (decoded.reader(path), vec![0.0; 700]);
            for (row, bits) in rows.iter().enumerate() {
                let bitmap = reader.bitmap(row);
                reader.expand(bitmap, 2301, reader.seek(row, bitmap, 2301), &mut part);
                assert!(part.iter().zip(&bits[2301..]).all(|(value, bits)| value.to_bits() == *bits), "{path}");
            }
        }
    }
}

#[test]
fn the_shape_that_a_block_claims_is_known_before_its_body_is_read() {
    let block = [0x80, 0x80, 0x80, 0x08, 3, 0xff];
    assert_eq!(Block::claimed_shape(&block), Ok((1 << 24, 3)));
    assert!(Block::claimed_shape(&block[..4]).is_err());
}
