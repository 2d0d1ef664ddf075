// Full collections of a large graph of 64-byte objects: median wall time of one.
// The shapes are those of src/programs/mark.rs, link for link.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

type object struct {
	link  [4]*object
	words [4]uint64
}

// All that keeps the graph alive.
var (
	root  *object
	roots []*object
)

func build(shape string, n int) {
	objects := make([]*object, n)
	for i := range objects {
		objects[i] = &object{words: [4]uint64{uint64(i)}}
	}
	random := rng(1)
	switch shape {
	case "random":
		p := random.permutation(n)
		for i := range n {
			from := objects[p[i]]
			for k := range 2 {
				if child := 2*i + 1 + k; child < n {
					from.link[k] = objects[p[child]]
				}
			}
			for k := 2; k < 4; k++ {
				from.link[k] = objects[random.below(n)]
			}
		}
		root = objects[p[0]]
	case "random-roots":
		for _, from := range objects {
			for k := range 2 {
				from.link[k] = objects[random.below(n)]
			}
		}
		p := random.permutation(n)
		roots = make([]*object, n)
		for i := range roots {
			roots[i] = objects[p[i]]
		}
	case "tree":
		linkTree(objects, 0, n)
		root = objects[0]
	case "chain":
		for i := range n - 1 {
			objects[i].link[0] = objects[i+1]
		}
		root = objects[0]
	case "chain-random":
		p := random.permutation(n)
		for i := range n - 1 {
			objects[p[i]].link[0] = objects[p[i+1]]
		}
		root = objects[p[0]]
	default:
		usage("mark random|random-roots|tree|chain|chain-random OBJECTS ROUNDS")
	}
}

// linkTree makes a balanced binary tree of objects[low..high] in the order in which a program
// that builds it from the root down allocates it: a node, its left subtree, its right subtree.
func linkTree(objects []*object, low, high int) {
	middle := low + 1 + (high-low)/2
	if low+1 < middle {
		objects[low].link[0] = objects[low+1]
		linkTree(objects, low+1, middle)
	}
	if middle < high {
		objects[low].link[1] = objects[middle]
		linkTree(objects, middle, high)
	}
}

func main() {
	if len(os.Args) != 4 {
		usage("mark SHAPE OBJECTS ROUNDS")
	}
	n, rounds := number(os.Args[2]), number(os.Args[3])

	// Only the collections that are timed: none while the graph is built.
	debug.SetGCPercent(-1)
	build(os.Args[1], n)
	runtime.GC() // frees what building left behind, and warms up

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
	runtime.KeepAlive(roots)
}
