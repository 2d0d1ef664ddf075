// Full collections of a recorded heap: median wall time of one.
//
// The file is the raw form of a .hg recording: "HG1\0", u32 nodes, u32 edges, the size of each
// node, the number of edges of each, the target of each edge; node 0 is the root.
//
// Layout "words" makes every word of an object a pointer, used or not. Layout "typed" tells the
// collector which words are pointers: the best case for it, as it stops at the last one.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"
)

var root unsafe.Pointer

type shape struct{ edges, words int }

var types = map[shape]reflect.Type{}

func allocate(layout string, edges, words int) unsafe.Pointer {
	if words == 0 {
		words = 1
	}
	if layout == "words" {
		return unsafe.Pointer(unsafe.SliceData(make([]unsafe.Pointer, words)))
	}
	s := shape{edges, words}
	t, found := types[s]
	if !found {
		var fields []reflect.StructField
		field := func(name string, length int, of reflect.Type) {
			if length > 0 { // an empty array at the end would make the object a word longer
				fields = append(fields, reflect.StructField{Name: name, Type: reflect.ArrayOf(length, of)})
			}
		}
		field("Edges", edges, reflect.TypeFor[unsafe.Pointer]())
		field("Words", words-edges, reflect.TypeFor[uint64]())
		t = reflect.StructOf(fields)
		types[s] = t
	}
	return reflect.New(t).UnsafePointer()
}

func build(path, layout string) (nodes int) {
	raw, err := os.ReadFile(path)
	if err != nil || len(raw) < 12 || string(raw[:4]) != "HG1\x00" {
		fmt.Fprintln(os.Stderr, "not a raw heap graph:", path, err)
		os.Exit(1)
	}
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(raw[4*at:])) }
	n := u32(1)
	sizes, degrees, targets := 3, 3+n, 3+2*n
	objects := make([]unsafe.Pointer, n)
	for i := range objects {
		words := (u32(sizes+i) + 7) / 8
		objects[i] = allocate(layout, u32(degrees+i), max(words, u32(degrees+i)))
	}
	edge := targets
	for i, object := range objects {
		links := unsafe.Slice((*unsafe.Pointer)(object), u32(degrees+i))
		for k := range links {
			links[k] = objects[u32(edge)]
			edge++
		}
	}
	root = objects[0]
	return n
}

func main() {
	if len(os.Args) != 4 {
		usage("heapgraph RAW_FILE words|typed ROUNDS")
	}
	rounds := number(os.Args[3])
	debug.SetGCPercent(-1)
	n := build(os.Args[1], os.Args[2])
	types = nil
	runtime.GC()

	times := make([]time.Duration, rounds)
	for i := range times {
		start := time.Now()
		runtime.GC()
		times[i] = time.Since(start)
	}
	took := median(times)
	report(float64(took.Nanoseconds())/1e6, "ms",
		fmt.Sprintf("ns/object=%.2f", float64(took.Nanoseconds())/float64(n)))
	runtime.KeepAlive(root)
}
