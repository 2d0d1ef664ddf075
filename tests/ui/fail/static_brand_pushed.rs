//! What may be changed keeps its brand: a `'static` object with cells gets into no open frame, no lock and no object of a
//! section, so no section gets another heap's cells.
use greywave::{Frame, Gc, GcCell, GcLock, Heap, Trace};

#[derive(Trace)]
struct Cells<'gc> {
    cells: Vec<GcCell<'gc, u32>>,
}

#[derive(Trace)]
struct Keeps<'gc> {
    list: GcLock<Vec<Gc<'gc, Cells<'gc>>>>,
}

fn frame(heap: &Heap, cells: Gc<'static, Cells<'static>>) {
    let m = heap.attach().unwrap();
    let mut frame: Frame<Vec<Gc<'static, Cells<'static>>>> = Frame::new(&m, Vec::new());
    frame.enter(&m).push(cells);
}

fn lock(heap: &Heap, cells: Gc<'static, Cells<'static>>) {
    let m = heap.attach().unwrap();
    let keeps = m.alloc(Keeps {
        list: GcLock::new(vec![m.alloc(Cells { cells: Vec::new() })]),
    });
    keeps.list.write(&m).push(cells);
}

fn object(heap: &Heap, cells: Gc<'static, Cells<'static>>) {
    let m = heap.attach().unwrap();
    let _ = m.alloc(cells);
}

fn main() {}
