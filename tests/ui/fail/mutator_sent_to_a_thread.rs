//! A mutator is its thread's.
use greywave::Heap;

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| println!("{:?}", m.heap()));
    });
    std::thread::spawn(move || m.safepoint());
}
