/* The names in a directory: names [NAME], where NAME is what to call the recording. The kernel takes the directory's lock. */
#include "work.h"

static char names[1024];

int main(int argc, char **argv)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("names:cstr[1024]", names);
    virtuoso_begin(argc > 1 ? argv[1] : "names");
    DIR *dir = opendir("/limits");
    if (dir) {
        struct dirent *entry;
        while ((entry = readdir(dir)))
            if (entry->d_name[0] != '.' && strlen(names) + strlen(entry->d_name) + 2 < sizeof names) {
                strcat(names, entry->d_name);
                strcat(names, " ");
            }
        closedir(dir);
    } else {
        rc = -errno;
    }
    virtuoso_end();

    printf("rc %d names %s\n", rc, names);
    return 0;
}
