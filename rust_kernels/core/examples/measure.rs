use fsd_core::{codec, frame};
use std::{io::Read, time::Instant};
fn main() {
    let mut f = std::io::BufReader::new(std::fs::File::open(std::env::args().nth(1).unwrap()).unwrap());
    let mut u = move |n: usize| -> Option<Vec<u32>> {
        let mut b = vec![0u8; 4 * n];
        f.read_exact(&mut b).ok()?;
        Some(b.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c)).collect())
    };
    let (mut tot, mut frames, mut te, mut td, mut raw, mut nnz, mut rows_n) =
        (0usize, 0usize, 0f64, 0f64, 0usize, 0usize, 0usize);
    let mut layer = 0;
    let mut ideal = 0.0;
    while let Some(h) = u(3) {
        let (n, l, s) = (h[0] as usize, h[1] as usize, h[2] as usize);
        let samples = if s == 0 { 10000 } else { s };
        let live = u(l).unwrap();
        let a = u(n * l).unwrap();
        let a: Vec<f32> = a.into_iter().map(f32::from_bits).collect();
        let ne = u(1).unwrap()[0];
        let mut lt = 0;
        let mut lr = 0;
        for _ in 0..ne {
            let k = u(1).unwrap()[0] as usize;
            let r = u(k).unwrap();
            let t = Instant::now();
            let b = codec::encode(k, samples, &live, |i, o| o.copy_from_slice(&a[r[i] as usize * l..][..l]));
            te += t.elapsed().as_secs_f64();
            lt += b.len() + frame::overhead(1);
            frames += 1;
            raw += k * l * 4;
            rows_n += k;
            lr += k * l * 4;
            let z: usize = r.iter().map(|&i| a[i as usize * l..][..l].iter().filter(|v| **v != 0.0).count()).sum();
            nnz += z;
            ideal += (z * 4 + k * l / 8) as f64;
            let t = Instant::now();
            let d = codec::Block::decode(&b, k, samples).unwrap();
            let mut o = vec![0f32; d.live().len()];
            for i in 0..k {
                d.expand(i, &mut o);
                std::hint::black_box(&o);
            }
            td += t.elapsed().as_secs_f64();
        }
        tot += lt;
        if layer < 12 || layer % 20 == 0 {
            println!("layer {layer} live {l} bytes {lt} raw {lr}");
        }
        layer += 1;
    }
    println!(
        "frames {frames} rows {rows_n} wire {tot} raw {raw} nnz {nnz} ratio-to-raw-nonzeros+bitmap {:.3} enc {:.0} MB/s dec {:.0} MB/s ({te:.2}s {td:.2}s)",
        tot as f64 / ideal,
        raw as f64 / te / 1e6,
        raw as f64 / td / 1e6
    );
}
