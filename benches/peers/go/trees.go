// Binary trees: wall time of the well-known allocation benchmark, with its work split evenly
// between the workers.
package main

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

type node struct{ left, right *node }

func bottomUp(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{bottomUp(depth - 1), bottomUp(depth - 1)}
}

func (n *node) count() uint64 {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

func main() {
	if len(os.Args) != 3 {
		usage("trees DEPTH WORKERS")
	}
	maxDepth, workers := number(os.Args[1]), number(os.Args[2])

	start := time.Now()
	var check atomic.Uint64
	check.Add(bottomUp(maxDepth + 1).count())
	longLived := bottomUp(maxDepth)
	var done sync.WaitGroup
	for w := range workers {
		done.Go(func() {
			sum := uint64(0)
			for depth := 4; depth <= maxDepth; depth += 2 {
				iterations := 1 << (maxDepth - depth + 4)
				for i := w; i < iterations; i += workers {
					sum += bottomUp(depth).count()
				}
			}
			check.Add(sum)
		})
	}
	done.Wait()
	check.Add(longLived.count())
	took := time.Since(start)
	report(float64(took.Nanoseconds())/1e6, "ms", fmt.Sprintf("check=%d", check.Load()))
}
