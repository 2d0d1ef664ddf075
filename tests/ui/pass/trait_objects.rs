//! A field may point to a trait object; its bound is the type's lifetime.
use greywave::{Gc, Heap, Root, Trace, dyn_target, unsize};

trait Shape {
    fn area(&self) -> f64;
}
dyn_target!(dyn Shape);

#[derive(Trace)]
struct Scaled<'gc> {
    shape: Gc<'gc, dyn Shape + 'gc>,
    by: f64,
}
impl Shape for Scaled<'_> {
    fn area(&self) -> f64 {
        self.shape.area() * self.by
    }
}

#[derive(Trace)]
struct Square(f64);
impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.0
    }
}

fn main() {
    let heap = Heap::new();
    let mut m = heap.attach().unwrap();
    let root: Root<dyn Shape> = {
        let square = unsize!(m.alloc(Square(3.0)) => dyn Shape);
        let scaled = m.alloc(Scaled {
            shape: square,
            by: 2.0,
        });
        m.root(unsize!(scaled => dyn Shape))
    };
    m.collect();
    assert_eq!(root.get(&m).area(), 18.0);
}
