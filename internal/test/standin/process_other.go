//go:build !linux

package standin

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }

// wait starts the process and stays with it.
func (s *Server) wait(started chan<- error) {
	err := s.cmd.Start()
	started <- err
	if err == nil {
		s.err = s.cmd.Wait()
		close(s.ended)
	}
}
