// What Go's runtime asks of its host: arguments, environment, its scheduler with a timer (poll_oneoff), its
// collector, and an exit status.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"time"
)

func main() {
	fmt.Println("hello from Go on", runtime.GOOS+"/"+runtime.GOARCH)
	fmt.Println("args:", strings.Join(os.Args[1:], " "))

	env := os.Environ()
	sort.Strings(env)
	for _, entry := range env {
		fmt.Println("env:", entry)
	}

	words := []string{"pear", "apple", "fig", "cherry"}
	sort.Slice(words, func(i, j int) bool { return len(words[i]) < len(words[j]) })
	fmt.Println("sorted:", words)

	sums := make(chan int)
	for worker := 0; worker < 4; worker++ {
		go func() {
			time.Sleep(time.Millisecond)
			sum := 0
			for n := worker; n < 1000; n += 4 {
				sum += n
			}
			sums <- sum
		}()
	}
	total := 0
	for worker := 0; worker < 4; worker++ {
		total += <-sums
	}
	runtime.GC()
	fmt.Println("goroutines:", total)

	if len(os.Args) > 1 && os.Args[1] == "fail" {
		os.Exit(3)
	}
}
